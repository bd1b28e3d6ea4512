"""Files whole or not at all: an error, a killed process, a disk without room in its several disguises."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from polyanchor import Index
from polyanchor._io import JobFailedError, is_unfinished, no_room, replacing, unfinished_name
from polyanchor.cli.app import run


@contextmanager
def limited(size):
    """No file may grow beyond so many bytes: the system refuses as it does on a full disk, in another word."""
    handler, (soft, hard) = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def save_with_torch(path):
    with path.open("wb") as file:
        torch.save({"a": torch.zeros(20_000), "b": torch.zeros(20_000)}, file)


WRITERS = {
    "text": lambda path: path.write_text("x" * 200_000),
    "torch": save_with_torch,
    "safetensors": lambda path: save_file({"a": torch.zeros(50_000)}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_without_room_the_old_file_stays_and_the_message_names_it(tmp_path, writer):
    path = tmp_path / "file"
    with pytest.raises(JobFailedError) as raised, limited(100_000), replacing(path) as unfinished:
        WRITERS[writer](unfinished)
    assert str(raised.value) == f"{path} could not be written: File too large. Make room on that disk"
    path.write_text("before")
    said = "the file that was there before is whole"
    with pytest.raises(JobFailedError, match=said), limited(100_000), replacing(path) as unfinished:
        WRITERS[writer](unfinished)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk(tmp_path):
    """A real one, of a megabyte, where this user may mount it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name == "nt" or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (disk / "file").write_text("before")
        for writer in (
            lambda path: path.write_bytes(bytes(2_000_000)),
            lambda path: save_file({"a": torch.zeros(500_000)}, path),
        ):
            with pytest.raises(JobFailedError, match="No space left on device"), replacing(disk / "file") as unfinished:
                writer(unfinished)
            assert (disk / "file").read_text() == "before"
            assert [file.name for file in disk.iterdir()] == ["file"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_any_other_error_passes_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(ZeroDivisionError), replacing(path) as unfinished:
        unfinished.write_text("half"), 1 / 0
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_while_writing(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    code = (
        "import os, signal, sys; from pathlib import Path; from polyanchor._io import replacing\n"
        "with replacing(Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -signal.SIGKILL
    assert path.read_text() == "before"
    with replacing(path) as unfinished:  # what the dead process left is no obstacle
        unfinished.write_text("whole")
    assert path.read_text() == "whole"


def test_it_has_reached_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, call=call: order.append(name) or call(*given))
    with replacing(tmp_path / "file") as unfinished:
        unfinished.write_text("whole")
    assert order == ["fsync", "replace"]


def test_what_room_is_and_what_is_not():
    wrapped = RuntimeError("torch says something else")
    wrapped.__context__ = OSError(errno.EDQUOT, "quota")
    assert no_room(wrapped) == os.strerror(errno.EDQUOT)
    assert no_room(PermissionError(errno.EACCES, "denied")) is None
    assert no_room(None) is None


def test_of_two_threads_that_write_one_file_one_is_left_whole(tmp_path):
    path, both = tmp_path / "file", threading.Barrier(2)

    def write(letter):
        for _ in range(20):
            both.wait()
            with replacing(path) as unfinished:
                for _ in range(50):
                    with unfinished.open("a") as file:
                        file.write(letter * 100)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    [one.start() for one in writers], [one.join() for one in writers]
    assert path.read_text() in ("a" * 5_000, "b" * 5_000)
    assert list(tmp_path.iterdir()) == [path]


HANG = (
    "import sys, time; from pathlib import Path; from polyanchor._io import replacing\n"
    "with replacing(Path(sys.argv[1])) as unfinished:\n"
    "    unfinished.write_text('other'); print(unfinished, flush=True); sys.stdin.readline()"
)


def hanging(path):
    """A process in the middle of writing a file."""
    process = subprocess.Popen([sys.executable, "-c", HANG, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_another_process_is_not_disturbed_and_the_last_one_wins(tmp_path):
    path = tmp_path / "file"
    other = hanging(path)
    with replacing(path) as unfinished:
        unfinished.write_text("mine")
    assert path.read_text() == "mine" and len(list(tmp_path.iterdir())) == 2  # its own is still being written
    other.communicate(b"\n")
    assert other.returncode == 0 and path.read_text() == "other"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_with_the_next_of_the_same_file(tmp_path):
    path = tmp_path / "file"
    other = hanging(path)
    other.kill(), other.communicate()
    (left,) = tmp_path.iterdir()
    assert is_unfinished(left.name)
    with replacing(tmp_path / "another") as unfinished:
        unfinished.write_text("no business of it")
    assert left.exists()
    with replacing(path) as unfinished:
        unfinished.write_text("whole")
    assert {file.name for file in tmp_path.iterdir()} == {"file", "another"}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_follows_the_umask_and_an_old_one_keeps_its_mode(writer, mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        for path, want in ((tmp_path / "new", mode), (tmp_path / "old", 0o664)):
            if path.name == "old":
                path.touch(), path.chmod(0o664)
            with replacing(path) as unfinished:
                unfinished.unlink()  # as a library does that writes a file of its own and renames it
                WRITERS[writer](unfinished)
            assert path.stat().st_mode & 0o777 == want
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["a" * 254, "猫" * 84 + "é", "a" * 249 + ".png"])
def test_a_name_as_long_as_the_system_allows(name, tmp_path):
    assert 253 <= len(os.fsencode(name)) <= 255
    with replacing(tmp_path / name) as unfinished:
        unfinished.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_names_that_differ_in_the_suffix_alone_are_written_at_once(tmp_path):
    with replacing(tmp_path / "hits.png") as first, replacing(tmp_path / "hits.jpg") as second:
        first.write_text("png"), second.write_text("jpg")
    assert (tmp_path / "hits.png").read_text() == "png" and (tmp_path / "hits.jpg").read_text() == "jpg"
    assert unfinished_name(tmp_path / "hits.png") != unfinished_name(tmp_path / "hits.png")


BUILD = (
    "import os, signal, sys; from pathlib import Path\n"
    "write = Path.replace\n"
    "def hang(self, to):\n"
    "    if str(self).endswith('.writing'): os.kill(os.getpid(), signal.SIGKILL)\n"
    "    return write(self, to)\n"
    "Path.replace = hang\n"
    "from polyanchor.cli.app import run; sys.exit(run(sys.argv[1:]))"
)


@pytest.mark.slow
def test_a_build_that_was_killed_leaves_a_place_for_a_new_one(tmp_path):
    save_file({"vectors": torch.randn(6, 4), "labels": torch.arange(6) // 2}, tmp_path / "v.safetensors")
    words = ["index", "build", str(tmp_path / "v.safetensors"), "--out", str(tmp_path / "new.index")]
    assert subprocess.run([sys.executable, "-c", BUILD, *words]).returncode == -signal.SIGKILL
    assert run(words) == 0
    assert len(Index.open(tmp_path / "new.index")) == 6
    assert not [file for file in tmp_path.rglob("*") if is_unfinished(file.name)]


def test_an_index_and_a_picture_follow_the_umask_too(tmp_path):
    save_file({"vectors": torch.randn(6, 4), "labels": torch.arange(6) // 2}, tmp_path / "v.safetensors")
    index, hits = str(tmp_path / "i" / "new.index"), str(tmp_path / "i" / ("h" * 250 + ".png"))
    before = os.umask(0o027)
    try:
        assert run(["index", "build", str(tmp_path / "v.safetensors"), "--out", index]) == 0
        assert run(["search", index, str(tmp_path / "v.safetensors"), "--picture", hits]) == 0
    finally:
        os.umask(before)
    files = [file for file in (tmp_path / "i").rglob("*") if file.is_file()]
    assert len(files) > 2 and {oct(file.stat().st_mode & 0o777) for file in files} == {"0o640"}
