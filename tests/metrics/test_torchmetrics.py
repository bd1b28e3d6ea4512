import math
import subprocess
import sys

import pytest
import torch

pytest.importorskip("torchmetrics", reason="extra: train")
from torchmetrics import MetricCollection
from torchmetrics.wrappers import MetricTracker, MinMaxMetric

from polyanchor.metrics.retrieval import evaluate_retrieval
from polyanchor.metrics.torchmetrics import RetrievalMetrics


def data(size=90):
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(-3, 12, (size,), generator=random)
    return torch.randn(15, 8, generator=random)[labels] + torch.randn(size, 8, generator=random), labels


def test_batches_are_one_gallery():
    vectors, labels = data()
    metric = RetrievalMetrics(k=(1, 5))
    for part in torch.arange(90).split(17):
        metric.update(vectors[part], labels[part].int())
    want = evaluate_retrieval(vectors, labels, k=(1, 5)).means
    assert {name: value.item() for name, value in metric.compute().items()} == want
    metric.reset()
    metric.update(vectors[:20], labels[:20])
    assert metric.compute()["mrr"].item() == evaluate_retrieval(vectors[:20], labels[:20], k=1).means["mrr"]


def test_forward_measures_the_batch_and_keeps_it():
    vectors, labels = data()
    metric = RetrievalMetrics(k=4)
    here = metric(vectors[:30], labels[:30])
    assert here["ndcg@4"].item() == evaluate_retrieval(vectors[:30], labels[:30], k=4).means["ndcg@4"]
    one = metric(vectors[30:31], labels[30:31])  # nothing to search in
    assert all(value.isnan() for value in one.values())
    three = metric(vectors[31:34], labels[31:34])  # too few for k = 4
    assert three["ndcg@4"].isnan()
    assert "recall@1" not in three
    assert set(one) == set(three) == set(here)
    metric.update(vectors[34:], labels[34:])
    assert metric.compute()["ndcg@4"].item() == evaluate_retrieval(vectors, labels, k=4).means["ndcg@4"]


def test_a_gallery_smaller_than_one_cutoff():
    metric = RetrievalMetrics(k=(1, 2, 8))
    metric.update(torch.eye(3), torch.zeros(3, dtype=torch.long))
    found = metric.compute()
    assert found["recall@2"] == 1
    assert found["ndcg@8"].isnan()
    assert found["mrr"] == 1


def test_gains_move_with_the_metric():
    vectors, labels = data()
    gains = torch.eye(20) + 0.5
    metric = RetrievalMetrics(k=3, gains=gains)
    assert not metric.state_dict()
    metric.update(vectors, labels.abs())
    want = evaluate_retrieval(vectors, labels.abs(), k=3, gains=gains).means
    assert metric.compute()["ndcg@3"].item() == want["ndcg@3"]


@pytest.mark.parametrize(("given", "kept"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_kept_precision_without_graph(given, kept):
    metric = RetrievalMetrics(k=1)
    metric.update(torch.eye(3, dtype=given).requires_grad_(), torch.tensor([0, 0, 1], dtype=torch.uint8))
    assert metric.embeddings[0].dtype == kept
    assert not metric.embeddings[0].requires_grad
    assert metric.labels[0].dtype == torch.int64


def test_in_a_collection():
    vectors, labels = data()
    collection = MetricCollection({"a": RetrievalMetrics(k=1), "b": RetrievalMetrics(k=2)})
    collection.update(vectors, labels)
    found = collection.compute()
    want = evaluate_retrieval(vectors, labels, k=(1, 2)).means
    assert found["a_recall@1"].item() == want["recall@1"]
    assert found["b_recall@2"].item() == want["recall@2"]


def test_synchronised_processes_are_one_gallery():
    """Two processes, of uneven size, played by the function that gathers."""
    vectors, labels = data()
    there = iter([torch.tensor([8, 0]), vectors[50:], labels[50:], labels[:0]])

    def gather(value, group=None):
        return [value, next(there)]

    metric = RetrievalMetrics(k=1, dist_sync_fn=gather, distributed_available_fn=lambda: True)
    metric.update(vectors[:30], labels[:30])
    metric.update(vectors[30:50], labels[30:50])
    want = evaluate_retrieval(vectors, labels, k=1).means
    assert {name: value.item() for name, value in metric.compute().items()} == want
    assert sum(map(len, metric.labels)) == 50  # its own items again afterwards


def test_an_id_counts_once():
    """Items 4 and 0 come again, as DistributedSampler repeats them; their copies would be hits at rank 1."""
    vectors = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    labels, ids = torch.arange(40) // 2, torch.tensor([*range(1, 40), 0, 4, 0])
    metric = RetrievalMetrics(k=1)
    for part in ids.split(9):
        metric.update(vectors[part], labels[part], part.to(torch.uint8))
    want = evaluate_retrieval(vectors, labels, k=1).means
    assert {name: value.item() for name, value in metric.compute().items()} == want
    doubled = RetrievalMetrics(k=1)
    doubled.update(vectors[ids], labels[ids])
    assert doubled.compute()["recall@1"] > want["recall@1"]
    metric.reset()
    metric(vectors[:4], labels[:4], ids=torch.arange(4))
    metric(vectors[2:6], labels[2:6], ids=torch.arange(2, 6))
    assert metric.compute()["mrr"].item() == evaluate_retrieval(vectors[:6], labels[:6], k=1).means["mrr"]


def test_refuses_ids_that_are_not_row_numbers():
    metric = RetrievalMetrics(k=1)
    with pytest.raises(ValueError, match=r"ids must have shape \(3,\)"):
        metric.update(torch.eye(3), torch.tensor([0, 0, 1]), torch.arange(2))
    metric.update(torch.eye(3), torch.tensor([0, 0, 1]), torch.arange(3))
    metric.update(torch.eye(3), torch.tensor([0, 1, 1]), torch.arange(3))  # counted within the batch
    with pytest.raises(ValueError, match="row numbers of the data set, got id 1 with the labels 0 and 1"):
        metric.compute()
    metric.reset()
    metric.update(torch.eye(3), torch.tensor([0, 0, 1]), torch.arange(3))
    metric.update(torch.eye(3), torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="in every update or in none, got 3 ids of 6 items"):
        metric.compute()


PROCESS = """
import sys, torch, torch.distributed as dist
from datetime import timedelta
from polyanchor.metrics.torchmetrics import RetrievalMetrics
rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=90))
labels = torch.tensor([2**24, 2**24 + 1, 2**24, 2**24 + 1, 5])
vectors = torch.tensor([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0]], dtype=torch.float64)
found = []
for parts, with_ids in (([0, 1, 2, 3, 4], []), False), (([], [0, 1, 2, 3, 4]), True), (([0, 2, 4], [1, 3, 0]), True):
    metric, mine = RetrievalMetrics(k=1), torch.tensor(parts[rank], dtype=torch.long)
    for rows in mine.split(2) if len(mine) else ():
        metric.update(vectors[rows], labels[rows], rows if with_ids else None)
    found.append([round(metric.compute()[name].item(), 6) for name in ("recall@1", "mrr")])
    assert sum(map(len, metric.labels)) == len(mine)  # its own items again afterwards
metric = RetrievalMetrics(k=1)
metric.update(torch.eye(3)[:, : 2 + rank], torch.arange(3))
try:
    metric.compute()
except ValueError as error:
    found.append(str(error).split(";")[0])
print(found)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_of_which_one_has_no_data(tmp_path):
    """A real process group, labels beyond float32, float64 vectors, and an item that the sampler repeated."""
    file = tmp_path / "store"
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROCESS, str(rank), str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    done = [process.communicate(timeout=180) for process in running]
    assert [process.returncode for process in running] == [0, 0], done
    # nearest first, item 0: 1 3 2 4, item 1: 0 3 2 4, item 2: 3 1 0 4, item 3: 2 1 0 4
    mrr = round((1 / 3 + 1 / 2 + 1 / 3 + 1 / 2) / 4, 6)
    refused = "embeddings must have the same width in every process, got [2, 3]"
    want = [[0.0, mrr], [0.0, mrr], [0.0, mrr], refused]
    assert [out.strip() for out, _ in done] == [str(want)] * 2, done


def test_refuses():
    with pytest.raises(ValueError, match="at least 1"):
        RetrievalMetrics(k=0)
    metric = RetrievalMetrics(k=1)
    with pytest.raises(TypeError, match="labels must have an integer dtype"):
        metric.update(torch.eye(2), torch.eye(2)[0])
    with pytest.raises(ValueError, match="labels must have shape"):
        metric.update(torch.eye(2), torch.tensor([1]))
    with pytest.warns(UserWarning, match="compute"), pytest.raises(ValueError, match="at least one update"):
        RetrievalMetrics().compute()


@pytest.mark.slow
def test_missing_torchmetrics_names_the_command():
    script = "import sys; sys.modules['torchmetrics'] = None; import polyanchor.metrics.torchmetrics"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingExtraError" in last
    assert "pip install 'polyanchor[train]'" in last


def test_says_what_it_is():
    assert RetrievalMetrics.is_differentiable is False
    assert RetrievalMetrics.higher_is_better is True
    assert RetrievalMetrics.full_state_update is False
    assert math.isnan(RetrievalMetrics(k=1)(torch.eye(2), torch.tensor([0, 1]))["mrr"])


def test_one_measure_suits_the_wrappers_of_torchmetrics():
    vectors, labels = data()
    halves = (slice(0, 40), slice(40, 90))
    want = [evaluate_retrieval(vectors[part], labels[part], k=4).means["map@r"] for part in halves]
    tracker = MetricTracker(RetrievalMetrics(k=4, measure="map@r"))
    span = MinMaxMetric(RetrievalMetrics(k=4, measure="map@r"))
    for part in halves:
        tracker.increment()
        tracker.update(vectors[part], labels[part])
        span.reset()
        span.update(vectors[part], labels[part])
        span.compute()
    assert tracker.compute_all().tolist() == want
    assert tracker.best_metric(return_step=True) == (max(want), want.index(max(want)))
    assert span.compute()["raw"].item() == want[1]
    with pytest.raises(ValueError, match="measure must be one of 'recall@4', .*'map@r', got 'map'"):
        RetrievalMetrics(k=4, measure="map")
