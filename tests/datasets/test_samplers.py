import os
import pickle
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from polyanchor.datasets.samplers import ClassBalancedBatches, Row, ShuffledBatches
from tests.distributed.ranks import on_ranks

quick = settings(deadline=None, max_examples=60)


@st.composite
def problems(draw):
    """Labels, classes per batch, images per class; class ids with gaps, in mixed order."""
    counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=8))
    ids = draw(st.lists(st.integers(0, 50), min_size=len(counts), max_size=len(counts), unique=True))
    labels = draw(st.permutations([c for c, n in zip(ids, counts, strict=True) for _ in range(n)]))
    return torch.tensor(labels), draw(st.integers(1, len(counts))), draw(st.integers(1, 6))


def epoch(sampler, number=0):
    sampler.set_epoch(number)
    return list(sampler)


@given(problems(), st.integers(0, 5))
@quick
def test_every_batch_has_p_classes_of_m_images(problem, seed):
    labels, p, m = problem
    sampler = ClassBalancedBatches(labels, classes=p, images=m, seed=seed)
    batches = epoch(sampler)
    assert len(batches) == len(sampler) == max(len(labels) // (p * m), 1)
    for rows in batches:
        found = Counter(labels[rows].tolist())
        assert len(found) == p
        assert set(found.values()) == {m}


@given(problems(), st.integers(0, 5))
@quick
def test_images_repeat_as_little_as_possible(problem, seed):
    labels, p, m = problem
    sizes = Counter(labels.tolist())
    drawn = Counter()
    for rows in epoch(ClassBalancedBatches(labels, classes=p, images=m, seed=seed)):
        inside = Counter(rows)
        for row, times in inside.items():  # within a batch: once if the class is large enough
            assert times in (m // sizes[int(labels[row])], -(-m // sizes[int(labels[row])]))
        drawn.update(rows)
        for label in sizes:  # over the epoch so far: none again before the class is used up
            times = [drawn[row] for row in (labels == label).nonzero()[:, 0].tolist()]
            assert max(times) - min(times) <= 1


@given(problems(), st.integers(0, 5))
@quick
def test_no_class_is_starved(problem, seed):
    labels, p, m = problem
    drawn = Counter(dict.fromkeys(labels.tolist(), 0))
    for rows in epoch(ClassBalancedBatches(labels, classes=p, images=m, seed=seed)):
        drawn.update(set(labels[rows].tolist()))
        assert max(drawn.values()) - min(drawn.values()) <= 1


def samplers(problem, **options):
    labels, p, m = problem
    yield ClassBalancedBatches(labels, classes=p, images=m, **options)
    if p * m <= len(labels):
        yield ShuffledBatches(labels, size=p * m, **options)


@pytest.mark.slow
@given(problems(), st.integers(0, 5), st.integers(0, 3))
@quick
def test_any_number_of_processes_sees_the_same_batches(problem, seed, number):
    size = problem[1] * problem[2]
    whole = [epoch(s, number) for s in samplers(problem, seed=seed)]
    for ranks in (2, 3, size, size + 1):  # the last leaves one of them without rows
        parts = [[epoch(s, number) for s in samplers(problem, seed=seed, rank=r, ranks=ranks)] for r in range(ranks)]
        lengths = [len(rows) for part in parts for batches in part for rows in batches]
        assert {size // ranks, -(-size // ranks)} == set(lengths)
        for kind, batches in enumerate(whole):
            joined = [
                [row for part in rows for row in part] for rows in zip(*(part[kind] for part in parts), strict=True)
            ]
            assert joined == batches


def test_the_whole_of_a_batch_is_known_to_each_process():
    sampler = ShuffledBatches(10, size=4, seed=1, rank=1, ranks=3)
    assert [sampler.whole(2, number) for number in range(2)] == epoch(ShuffledBatches(10, size=4, seed=1), 2)


@given(problems(), st.integers(0, 5), st.data())
@quick
def test_resuming_gives_the_tail(problem, seed, data):
    for sampler, again in zip(samplers(problem, seed=seed), samplers(problem, seed=seed), strict=True):
        sampler.set_epoch(3)
        whole = list(sampler)
        position = data.draw(st.integers(0, len(whole)))
        again.load_state_dict({"epoch": 3, "position": position})
        assert again.state_dict() == {"epoch": 3, "position": position}
        for _ in range(2):
            again.set_epoch(3)  # as a training loop does at the head of the epoch it resumes in, Lightning twice
            assert list(again) == whole[position:]
        assert len(again) == len(whole)
        again.set_epoch(4)
        assert len(list(again)) == len(whole)


@pytest.mark.parametrize("kind", ["balanced", "shuffled"])
def test_epochs_and_seeds_differ_and_nothing_else_matters(kind):
    labels = torch.arange(10).repeat(8)

    def make(seed):
        if kind == "balanced":
            return ClassBalancedBatches(labels, classes=5, images=4, seed=seed)
        return ShuffledBatches(80, size=20, seed=seed)

    sampler = make(0)
    first, second = epoch(sampler, 0), epoch(sampler, 1)
    assert first != second
    assert epoch(make(1), 0) not in (first, second)
    torch.manual_seed(99)
    assert epoch(make(0), 1) == second  # whatever ran before, here epoch 0, does not count
    assert epoch(sampler, 0) == first


def test_keys_carry_the_epoch_even_if_it_moves_on_meanwhile():
    sampler = ShuffledBatches(10, size=2, seed=0)
    sampler.set_epoch(7)
    batches = iter(sampler)
    head = list(islice(batches, 2))
    sampler.set_epoch(8)
    assert {number for batch in [*head, *batches] for number in (row.epoch for row in batch)} == {7}


def test_an_iteration_under_way_is_not_moved():
    sampler = ShuffledBatches(10, size=2, seed=0)
    whole = list(sampler)
    sampler.set_epoch(0)
    batches = iter(sampler)
    head = next(batches)
    sampler.load_state_dict({"epoch": 3, "position": 4})
    assert [head, *batches] == whole
    assert len(list(sampler)) == 1


def test_a_shuffle_is_a_permutation_without_its_tail():
    rows = [row for batch in epoch(ShuffledBatches(11, size=3, seed=5)) for row in batch]
    assert len(rows) == len(set(rows)) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 4, "images": 1}, "cannot hold 4 different classes: there are 3; classes=3 is the most"),
        ({"classes": 0, "images": 1}, "1 or more"),
        ({"classes": 1, "images": 0}, "1 or more"),
        ({"classes": 2, "images": 1, "ranks": 2, "rank": 2}, "rank must lie in"),
        ({"classes": 2, "images": 1, "seed": -1}, "seed must be 0 or more"),
    ],
)
def test_errors_of_balanced_batches(options, message):
    with pytest.raises(ValueError, match=message):
        ClassBalancedBatches(torch.tensor([0, 1, 2, 2]), **{"seed": 0, **options})


@pytest.mark.parametrize("size", [0, 5])
def test_errors_of_shuffled_batches(size):
    with pytest.raises(ValueError, match=f"between 1 and the number of items, 4, got {size}"):
        ShuffledBatches(4, size=size, seed=0)


def test_a_row_is_an_int_that_knows_its_epoch_in_another_process_too():
    row = pickle.loads(pickle.dumps(Row(3, epoch=5)))
    assert (row, row.epoch, type(row), hash(row), str(row)) == (3, 5, Row, hash(3), "3")
    matrix = torch.arange(20.0).reshape(5, 4)
    for found in (matrix[row], matrix[[row, row]][1], matrix.numpy()[row], matrix.numpy()[[row]][0], list(matrix)[row]):
        assert list(found) == [12, 13, 14, 15]
    assert torch.tensor([row, Row(4)]).dtype == torch.int64
    assert np.array([row]).dtype == np.int64


class Epochs(Dataset):
    """Knows nothing of this package; says which row it was asked for, and in which epoch."""

    def __len__(self):
        return 12

    def __getitem__(self, row):
        return range(12)[row], row.epoch


def expected(*epochs, **options):
    """What a sampler that is told the epoch gives."""
    return [epoch(ShuffledBatches(12, size=4, seed=3, **options), number) for number in epochs]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 1, "persistent_workers": True}], ids=str)
def test_in_a_plain_loop_each_iteration_is_a_new_epoch(options):
    sampler = ShuffledBatches(12, size=4, seed=3)
    loader = DataLoader(Epochs(), batch_sampler=sampler, **options)
    for number, batches in enumerate(expected(0, 1, 2)):
        assert sampler.state_dict() == {"epoch": number, "position": 0}
        found = list(loader)
        assert [rows.tolist() for rows, _ in found] == batches
        assert {int(entry) for _, epochs in found for entry in epochs} == {number}
    sampler.set_epoch(1)
    again = [[rows.tolist() for rows, _ in loader] for _ in range(2)]
    assert again == expected(1, 2)
    sampler.load_state_dict({"epoch": 1, "position": 2})
    again = [[rows.tolist() for rows, _ in loader] for _ in range(2)]
    assert again == [expected(1)[0][2:], *expected(2)]


def test_a_dataset_of_torch_takes_the_rows():
    x, labels = torch.randn(8, 3), torch.arange(8) // 2
    sampler = ClassBalancedBatches(labels, classes=2, images=2, seed=0)
    batches = list(DataLoader(TensorDataset(x, labels), batch_sampler=sampler))
    for (inputs, classes), rows in zip(batches, epoch(sampler), strict=True):
        assert torch.equal(inputs, x[rows]) and torch.equal(classes, labels[rows])


def fitted(epochs, checkpoint=None, save=None, **options):
    """Rows of every step of a Lightning training."""
    lightning = pytest.importorskip("lightning", reason="extra: train")
    seen = []

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(1, 1)

        def train_dataloader(self):
            ranks = {"rank": self.global_rank, "ranks": self.trainer.world_size}
            sampler = ShuffledBatches(12, size=4, seed=3, **ranks)
            return DataLoader(TensorDataset(torch.arange(12)), batch_sampler=sampler)

        def training_step(self, batch, _):
            seen.append((self.current_epoch, batch[0].tolist()))
            return self.net(batch[0].float()[:, None]).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet["enable_checkpointing"] = False
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", **quiet, **options)
    trainer.fit(Module(), ckpt_path=checkpoint, weights_only=False)
    if save is not None:
        trainer.save_checkpoint(save)
    return seen


def steps(first, last, **options):
    return [(number, rows) for number in range(first, last) for rows in expected(number, **options)[0]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # lightning advises on workers and checkpoints
def test_lightning_goes_through_the_epochs_and_resumes_in_the_right_one(tmp_path):
    pytest.importorskip("lightning", reason="extra: train")
    assert fitted(3, save=tmp_path / "last.ckpt") == steps(0, 3)
    assert fitted(5, checkpoint=tmp_path / "last.ckpt") == steps(3, 5)


def fitted_on_ranks():
    """In each process, as torchrun has started it."""
    import torch.distributed as dist

    said = {"RANK": dist.get_rank(), "LOCAL_RANK": dist.get_rank(), "GROUP_RANK": 0, "MASTER_PORT": 1}
    said |= {"WORLD_SIZE": dist.get_world_size(), "LOCAL_WORLD_SIZE": dist.get_world_size()}
    said |= {"MASTER_ADDR": "localhost", "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in said.items()})
    return fitted(2, devices=dist.get_world_size(), strategy="ddp", use_distributed_sampler=False)


@pytest.mark.slow
def test_two_devices_of_lightning_share_each_batch():
    pytest.importorskip("lightning", reason="extra: train")
    found = on_ranks(2, fitted_on_ranks)
    for rank, seen in enumerate(found):
        assert [tuple(step) for step in seen] == steps(0, 2, rank=rank, ranks=2)
    assert [one[1] + other[1] for one, other in zip(*found, strict=True)] == [rows for _, rows in steps(0, 2)]
