"""Which checkpoint a run goes on from, damaged files included; that a file is written past the memory."""

import pytest
import torch

from polyanchor._io import JobFailedError
from polyanchor.runs.folder import RunFolder
from polyanchor.training.resume import CheckpointFiles, damage, to_resume_from
from tests.test__io import limited

STATE = {
    **dict.fromkeys(("optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step")),
    "state_dict": {"weight": torch.arange(20_000.0)},
    "epoch": 3,
}


def cut(content):
    return content[: len(content) // 2]


def flipped(content):
    middle = len(content) // 2  # inside the numbers, where torch itself looks for nothing
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


HARM = {"cut": cut, "empty": lambda content: b"", "zeros": lambda content: bytes(len(content)), "flipped": flipped}


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def write(path):
    CheckpointFiles().save_checkpoint(STATE, path)


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_file_is_passed_over_and_said(folder, harm):
    said = []
    assert to_resume_from(folder, said.append) is None
    write(folder.last)
    assert to_resume_from(folder, said.append) == folder.last
    folder.last.write_bytes(HARM[harm](folder.last.read_bytes()))
    with pytest.raises(ValueError, match="last.ckpt is damaged .* no other checkpoint to go on from"):
        to_resume_from(folder, said.append)
    assert said == []
    write(folder.best)
    assert to_resume_from(folder, said.append) == folder.best
    assert "last.ckpt is damaged" in said[0] and "going on from" in said[0] and "best.ckpt" in said[0]


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_best_is_said_before_the_training_rather_than_after_it(folder, harm):
    write(folder.last)
    write(folder.best)
    folder.best.write_bytes(HARM[harm](folder.best.read_bytes()))
    with pytest.raises(ValueError, match=r"^\S+best.ckpt is damaged .* the best epoch .* put back a copy"):
        to_resume_from(folder, print)


def test_a_whole_file_of_something_else_is_no_checkpoint(folder):
    folder.checkpoints.mkdir(parents=True)
    torch.save({"state_dict": {}}, folder.last)
    with pytest.raises(ValueError, match=r"last.ckpt is damaged \(it holds no optimizer_states\)"):
        to_resume_from(folder, print)
    folder.last.unlink()
    folder.last.mkdir()
    with pytest.raises(ValueError, match="last.ckpt is damaged"):
        to_resume_from(folder, print)


def test_a_whole_file_loads_as_torch_wrote_it(folder):
    write(folder.last)
    assert damage(folder.last) is None
    loaded = CheckpointFiles().load_checkpoint(folder.last, weights_only=True)
    assert torch.equal(loaded["state_dict"]["weight"], STATE["state_dict"]["weight"])
    assert [file.name for file in folder.checkpoints.iterdir()] == ["last.ckpt"]


def test_without_room_the_checkpoint_before_stays(folder):
    write(folder.last)
    said = "last.ckpt could not be written: File too large; the file that was there before is whole"
    with pytest.raises(JobFailedError, match=said), limited(100_000):
        CheckpointFiles().save_checkpoint(STATE | {"more": torch.zeros(30_000)}, folder.last)
    assert damage(folder.last) is None
