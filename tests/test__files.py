"""Files whole or not at all: an error, a killed process, a disk without room in its several disguises."""

import errno
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from polyanchor._files import JobFailedError, no_room, replacing


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
        "import os, signal, sys; from pathlib import Path; from polyanchor._files import replacing\n"
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
