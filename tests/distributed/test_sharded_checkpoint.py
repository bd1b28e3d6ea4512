"""Proxies and AdamW's moments written by two ranks, gone on with by three and then by one; files that are not whole."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.device_mesh import DeviceMesh

from polyanchor import MultiProxyAnchorLoss
from polyanchor.distributed.sharded_checkpoint import load_sharded, save_sharded
from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss
from tests.distributed.ranks import on_ranks

CLASSES, CENTRES, DIM = 7, 2, 5
OPTIONS = {"proxies_per_class": CENTRES, "anchor": "data"}


def training(mesh):
    """Loss and optimizer as a program makes them anew when it starts."""
    if mesh is None:
        loss = MultiProxyAnchorLoss(CLASSES, DIM, **OPTIONS)
    else:
        loss = ShardedMultiProxyAnchorLoss(CLASSES, DIM, mesh=mesh, **OPTIONS)
    loss.double()
    return loss, torch.optim.AdamW(loss.parameters(), lr=0.1, weight_decay=0.1)


def step(number, loss, optimizer, mesh):
    generator = torch.Generator().manual_seed(number)
    rows = torch.randn(12, DIM, dtype=torch.float64, generator=generator)
    labels = torch.randint(CLASSES, (12,), generator=generator)
    mine = slice(None) if mesh is None else slice(mesh.get_local_rank(), None, mesh.size())
    optimizer.zero_grad()
    loss(rows[mine], labels[mine]).backward()
    optimizer.step()


def held(loss, optimizer):
    tensors = {"proxies": loss.proxies, **optimizer.state[loss.proxies]}
    whole = {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in tensors.items()}
    return {name: value.detach() for name, value in whole.items()}


def listed(tensors):
    return {name: value.tolist() for name, value in tensors.items()}


def two_then_three(folder):
    folder, rank, found = Path(folder), dist.get_rank(), {}
    two, three = DeviceMesh("cpu", [0, 1]), DeviceMesh("cpu", [0, 1, 2])
    if rank < 2:
        loss, optimizer = training(two)
        for number in range(3):
            step(number, loss, optimizer, two)
        for _ in range(2):  # the second time there is one to be replaced
            save_sharded(folder / "by two", loss, optimizer)
        found["two"] = listed(held(loss, optimizer))
    dist.barrier()
    torch.manual_seed(9)  # other proxies than those that are saved
    loss, optimizer = training(three)
    load_sharded(folder / "by two", loss, optimizer)
    found["three, read"] = listed(held(loss, optimizer))
    for number in range(3, 5):
        step(number, loss, optimizer, three)
    save_sharded(folder / "by three", loss, optimizer)
    found["three"] = listed(held(loss, optimizer))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("proxies")


@pytest.fixture(scope="module")
def found(folder):
    return on_ranks(3, two_then_three, str(folder))


@pytest.mark.slow
def test_three_ranks_go_on_from_two_exactly(found):
    for rank in found:
        assert rank["three, read"] == found[0]["two"]
    assert set(found[0]["two"]) == {"proxies", "exp_avg", "exp_avg_sq", "step"}


@pytest.mark.slow
def test_one_process_goes_on_from_three_exactly(found, folder):
    loss, optimizer = training(None)
    load_sharded(folder / "by three", loss, optimizer)
    assert listed(held(loss, optimizer)) == found[0]["three"]
    assert optimizer.state[loss.proxies]["step"] == 5
    step(5, loss, optimizer, None)

    torch.manual_seed(0)
    never_stopped, its_optimizer = training(None)
    for number in range(6):
        step(number, never_stopped, its_optimizer, None)
    for name, value in held(never_stopped, its_optimizer).items():
        torch.testing.assert_close(held(loss, optimizer)[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_the_files_are_safetensors_alone_and_each_holds_a_part(found, folder):
    files = sorted((folder / "by three").iterdir())
    assert [file.suffix for file in files] == [".safetensors"] * 3
    parts = [load_file(file)["proxies"] for file in files]
    assert [len(part) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat(parts), torch.tensor(found[0]["three"]["proxies"], dtype=torch.float64))
    assert not list(folder.glob("*.writing"))


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_file_is_named(found, folder, tmp_path, lost):
    copy = shutil.copytree(folder / "by three", tmp_path / "copy")
    sorted(copy.iterdir())[lost].unlink()
    loss, optimizer = training(None)
    before = loss.proxies.detach().clone()
    with pytest.raises((FileNotFoundError, ValueError), match=r"the file of a rank is missing|of shape \(7, 2, 5\)"):
        load_sharded(copy, loss, optimizer)
    assert torch.equal(loss.proxies, before)


@pytest.mark.slow
def test_killed_between_two_renamings_the_one_before_is_read(found, folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder / "by three", tmp_path / "copy")
    loss, optimizer = training(None)
    step(0, loss, optimizer, None)
    renamed = Path.replace

    def killed(self, target):
        if self.suffix == ".writing":
            raise KeyboardInterrupt
        return renamed(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_sharded(copy, loss, optimizer)
    assert not copy.exists()
    load_sharded(copy, loss, optimizer)
    assert listed(held(loss, optimizer)) == found[0]["three"]
    monkeypatch.undo()
    save_sharded(copy, loss, optimizer)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy"]


@pytest.mark.slow
def test_other_proxies_and_no_folder_are_refused(found, folder):
    with pytest.raises(ValueError, match=r"must hold proxies of shape \(8, 2, 5\), got \(7, 2, 5\)"):
        load_sharded(folder / "by three", MultiProxyAnchorLoss(8, DIM, **OPTIONS))
    with pytest.raises(FileNotFoundError, match="is not there"):
        load_sharded(folder / "by four", MultiProxyAnchorLoss(8, DIM, **OPTIONS))


def test_one_process_writes_the_same_form(tmp_path):
    loss, optimizer = training(None)
    save_sharded(tmp_path / "new", loss)
    save_sharded(tmp_path / "old", loss, optimizer)
    step(0, loss, optimizer, None)
    load_sharded(tmp_path / "old", loss)
    torch.manual_seed(0)
    assert torch.equal(loss.proxies, training(None)[0].proxies)
    assert json.dumps(sorted(file.name for file in (tmp_path / "new").iterdir())).count("safetensors") == 1
