"""A run on several processes is the run of one process: training, measuring, stopping, going on, failing."""

import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from polyanchor.config.loading import load_config
from polyanchor.distributed.comm import Ranks
from polyanchor.runs.folder import RunFolder
from polyanchor.training.launch import Launched, _launched, process_group
from polyanchor.training.train import _same_data
from tests.compare import features
from tests.distributed.ranks import on_ranks
from tests.tiny_runs import settings, write_photos
from tests.training.test_train import same_run, weights

# float64 and fixed batch norms: what is left is the order of sums. Five classes train; 24 items are held out, 32 test.
EXACT = ["run.precision=64-true", "run.accelerator=cpu", "batches.classes_per_batch=5", "batches.samples_per_class=3"]
CASES = {
    "mixed": ["loss.anchor=mixed", "optim.clip=norm", "optim.clip_value=0.5", "batches.micro_batch_size=3"],
    "sharded": ["loss.proxy_sharding=class", "loss.anchor=data", "optim.clip=norm", "optim.clip_value=0.5"],
    "frozen at first": ["model.freeze_bn=true", "batches.samples_per_class=2", "optim.warmup_epochs=1", "run.epochs=2"],
    "none for one": ["loss.name=triplet", "batches.classes_per_batch=1", "batches.samples_per_class=2"],
}
ON = {1: list(CASES), 2: ["mixed", "sharded"], 3: ["sharded", "frozen at first", "none for one"]}


def of(place, name, *changes):
    if name == "frozen at first":  # the others are vectors
        words = settings(f"{place}/photos", *EXACT[:2], *CASES[name], *changes)
    else:
        words = features.settings(f"{place}/v.safetensors", *EXACT, *CASES[name], *changes)
    return [word for word in words if not (name == "none for one" and word == "loss.proxies_per_class=2")]


def trained(words, folder, **options):
    from polyanchor.training.train import train

    return train(load_config(settings=words), folder, **options)


class OnOne:
    """A request to stop that one rank alone hears, at its n-th look."""

    def __new__(cls, n):
        from tests.training.test_train import StopAfter

        return StopAfter(n)


def attempt(words, folder, **options):
    """Whether a run was stopped."""
    from polyanchor.training.stopping import Interrupted

    try:
        trained(words, folder, **options)
    except Interrupted:
        return True
    return False


def runs(place):
    """On each of the ranks: every case, a stop that one rank hears, a NaN, refusals."""
    from polyanchor.training.nan_guard import DivergedError
    from polyanchor.training.stopping import StopRequest

    size, rank, found = dist.get_world_size(), dist.get_rank(), {}
    devices = f"run.devices={size}"
    for name in ON[size]:
        found[name] = trained(of(place, name, devices), f"{place}/{name} {size}").means
    name = "mixed" if size == 2 else "sharded"
    words, part = of(place, name, devices), f"{place}/{name} {size} in parts"
    found["stopped"] = attempt(words, part, stop=OnOne(1) if rank == size - 1 else StopRequest())
    found["left"] = sorted(file.name for file in Path(part, "checkpoints").iterdir())
    trained(words, part, resume=True)
    for name in ("mixed", "sharded"):  # two begin, three go on, one ends
        stop = OnOne(1 if size == 2 else 2) if rank == 1 else StopRequest()
        found[f"{name} goes on"] = attempt(
            of(place, name, devices), f"{place}/{name} goes on", resume=size == 3, stop=stop
        )
    for name, change in {
        "diverged": "loss.alpha=1e30",
        "used folder": "optim.lr=1e-3",
        "other count": "run.devices=4",
        "sampled": "loss.negative_sample_rate=0.5",
    }.items():
        said = []
        folder = f"{place}/{'sharded' if name == 'used folder' else name} {size}"
        words = of(place, "sharded" if name == "sampled" else "mixed", devices, "run.epochs=1", change)
        try:
            trained([*words, "optim.clip=none"], folder, announce=said.append)
            found[name] = "done"
        except (ValueError, DivergedError, FileExistsError) as error:
            found[name] = f"{type(error).__name__}: {error}"
        found[f"{name}, announced"] = len(said)
    return found


def measured(place):
    """Embeddings and reports of item counts that the ranks do not divide, against one process."""
    from polyanchor.config.builders import make_model, make_transforms, open_parts
    from polyanchor.distributed.comm import Ranks, ranks_of_group
    from polyanchor.runs.embed import embed
    from polyanchor.runs.evaluate import evaluate_items

    config = load_config(settings=settings(f"{place}/photos"))
    items = open_parts(config).split.test
    torch.manual_seed(0)  # a run leaves the ranks with different generators
    model = make_model(config, items).eval()
    view, same = make_transforms(config, model.statistics)[1], []
    with ranks_of_group() as ranks:
        for count, size in ((16, 3), (13, 2), (7, 5), (2, 1), (1, 64)):
            some, seen = items.subset(torch.arange(count)), []
            handle = model.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(len(inputs[0])))
            got, _ = embed(model, some, view, batch_size=size, ranks=ranks)
            handle.remove()
            want, _ = embed(model, some, view, batch_size=size)
            same += [sum(sum(part) for part in ranks.all_gather_object(seen)) == count, got.names == want.names]
            same += [torch.equal(got.vectors, want.vectors), torch.equal(got.labels, want.labels)]
        reports = [evaluate_items(model, items, None, view, k=[1, 3], ranks=who) for who in (ranks, Ranks())]
        same += [reports[0].means == reports[1].means, len(reports[0].per_query["mrr"]) == 16]
        try:
            ranks.run_on_rank0(lambda: int("x"))
        except ValueError as error:
            same.append("invalid literal" in str(error))
        same.append(ranks.all_max(ranks.rank, -ranks.rank) == [ranks.size - 1, 0])
    return same


def everything(place):
    return {"runs": runs(place), "measured": measured(place)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("ranks")
    features.write(place / "v.safetensors")
    write_photos(place / "photos")
    return place


@pytest.fixture(scope="module")
def two(place):
    return on_ranks(2, everything, str(place))


@pytest.fixture(scope="module")
def three(place, two):
    pytest.importorskip("pytorch_metric_learning", reason="extra: compare")
    return on_ranks(3, everything, str(place))


@pytest.fixture(scope="module")
def one(place):
    """Measures of one process, whose folders lie beside."""
    return {name: trained(of(place, name), place / f"{name} 1").means for name in CASES}


def saved(folder):
    from safetensors.torch import load_file

    return load_file(RunFolder(Path(folder)).model)


def close(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: name + text)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [(name, size) for size in (2, 3) for name in ON[size]])
def test_a_run_ends_as_that_of_one_process(place, one, two, three, name, size):
    close(saved(place / f"{name} 1"), saved(place / f"{name} {size}"))
    for rank in two if size == 2 else three:
        assert rank["runs"][name] == pytest.approx(one[name])
    results = [json.loads(RunFolder(place / f"{name} {n}").results.read_text()) for n in (1, size)]
    assert results[0]["epoch"] == results[1]["epoch"]
    for rows in zip(*(result["epochs"] for result in results), strict=True):
        assert rows[0] == pytest.approx(rows[1], rel=1e-6, abs=1e-9)


@pytest.mark.slow
def test_a_stop_that_one_rank_hears_stops_all_after_the_same_step_and_resumes_exactly(place, two, three):
    for rank in (*two, *three):
        assert rank["runs"]["stopped"]
    assert two[0]["runs"]["left"] == ["last.ckpt"]
    assert three[0]["runs"]["left"] == ["last.ckpt", "proxies-00000001"]
    same_run(place / "mixed 2", place / "mixed 2 in parts")
    # the order in which three gradients are summed depends on the buckets, which the first step after a start sets anew
    whole, parts = saved(place / "sharded 3"), saved(place / "sharded 3 in parts")
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixed", "sharded"])
def test_a_run_of_two_goes_on_with_three_and_ends_with_one(place, one, two, three, name):
    assert all(rank["runs"][f"{name} goes on"] for rank in (*two, *three))
    trained(of(place, name, "run.devices=1"), place / f"{name} goes on", resume=True)
    close(saved(place / f"{name} 1"), saved(place / f"{name} goes on"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_the_first_alone_writes_and_speaks(place, two, three, size):
    found = [rank["runs"] for rank in (two if size == 2 else three)]
    for rank in found:
        assert "DivergedError: epoch 1, step " in rank["diverged"]
        assert "Its batch of 15 (" in rank["diverged"]
        assert "is not empty; take another --out" in rank["used folder"]
        assert f"run.devices x run.nodes must be the number of processes, got 4 x 1 and {size}" in rank["other count"]
        assert rank["sampled"] == "done"
    assert [rank["sampled, announced"] > 0 for rank in found] == [True] + [False] * (size - 1)
    from polyanchor.models.weights import read_state

    assert len(read_state(RunFolder(place / f"diverged {size}").not_finite)["rows"]) == 15
    assert not list(Path(place).rglob("*.writing"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_evaluation_embeds_each_item_once_and_reports_the_same(two, three, size):
    for rank in two if size == 2 else three:
        assert all(rank["measured"]), rank["measured"]


@pytest.mark.slow
def test_proxies_of_a_sharded_run_are_whole_in_the_end_and_in_parts_beside_the_checkpoint(place, three):
    folder = RunFolder(place / "sharded 3")
    proxies = saved(place / "sharded 3")["loss.proxies"]
    assert proxies.shape == (5, 2, 6)
    assert "loss.proxies" not in weights(place / "sharded 3")
    named = torch.load(folder.last, weights_only=True)["proxies"]
    parts = sorted((folder.checkpoints / named).iterdir())
    assert len(parts) == 3


def test_what_launchers_say():
    torchrun = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "5"}
    assert _launched(torchrun) == Launched(1, 4, "a", 5)
    assert _launched(torchrun | {"RANK": "0", "WORLD_SIZE": "1"}) is None
    slurm = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NODELIST": "gpu[07-08]", "SLURM_JOB_ID": "123456"}
    assert _launched(slurm) == Launched(3, 8, "gpu07", 10_000 + 23_456)
    assert _launched({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}) is None  # a batch script
    assert _launched({}) is None


def test_nodes_with_other_data_are_refused():
    class Two(Ranks):
        def all_gather_object(self, value):
            return [value, ("of other files", value[1])]

    split = {"fingerprint": "a", "contents": "b", "source": "folder:photos"}
    _same_data(Ranks(), split)
    with pytest.raises(ValueError, match="got others of folder:photos in process 1 than in process 0; give each node"):
        _same_data(Two(), split)


def test_processes_that_nobody_launched(tmp_path, monkeypatch):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    config = features.config(tmp_path / "none.safetensors", "run.devices=2", "run.accelerator=cpu")
    with pytest.raises(ValueError, match="ask for 2 processes, got one; start them with"), process_group(config):
        pass


def test_one_process_alone_needs_no_group(tmp_path):
    with process_group(features.config(tmp_path / "none.safetensors")) as ranks:
        assert ranks.size == 1 and ranks.first and not dist.is_initialized()
        assert (
            ranks.all_gather_object(3) == [3]
            and ranks.all_max(1, 2) == [1, 2]
            and ranks.run_on_rank0(os.getpid) == os.getpid()
        )
