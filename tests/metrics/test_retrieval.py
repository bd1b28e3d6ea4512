import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyanchor.metrics.retrieval import evaluate_retrieval
from polyanchor.search import scores, symmetric
from polyanchor.search.scores import padded_unit_rows
from tests.covering import covering
from tests.exact_vectors import VECTORS, cosine
from tests.search.live_memory import LiveMemory
from tests.search.small_tiles import small_tiles


def dcg(gains):
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def one_query(hits, gains, cutoffs):
    """Every measure of one full ranking, by its formula."""
    r = sum(hits)
    found = {}
    for k in cutoffs:
        found[f"recall@{k}"] = float(any(hits[:k])) if r else math.nan
        found[f"precision@{k}"] = sum(hits[:k]) / k if r else math.nan
        ideal = dcg(sorted(gains, reverse=True)[:k])
        found[f"ndcg@{k}"] = dcg(gains[:k]) / ideal if ideal else math.nan
    found["mrr"] = 1 / (hits.index(True) + 1) if r else math.nan
    found["r_precision"] = sum(hits[:r]) / r if r else math.nan
    found["map@r"] = sum(sum(hits[: i + 1]) / (i + 1) for i in range(r) if hits[i]) / r if r else math.nan
    return found


def by_hand(queries, labels, gallery, gallery_labels, cutoffs, table=None, *, leave_one_out):
    """Full rankings in exact arithmetic, then the formulas."""
    answers = []
    for q, (query, label) in enumerate(zip(queries, labels, strict=True)):
        others = [n for n in range(len(gallery)) if not (leave_one_out and n == q)]
        order = sorted(others, key=lambda n: (-cosine(query, gallery[n]), n))
        hits = [gallery_labels[n] == label for n in order]
        gains = [table[label][gallery_labels[n]] for n in order] if table else hits
        answers.append(one_query(hits, gains, cutoffs))
    return answers


def assert_report(report, want, k):
    assert set(report.per_query) == set(report.means) == set(want[0])
    for name in want[0]:
        column = [answer[name] for answer in want]
        got = report.per_query[name]
        assert (got.dtype, got.device.type, got.shape) == (torch.float64, "cpu", (len(want),))
        assert got.tolist() == pytest.approx(column, nan_ok=True, rel=1e-12), name
        defined = [value for value in column if not math.isnan(value)]
        mean = sum(defined) / len(defined) if defined else math.nan
        assert report.means[name] == pytest.approx(mean, nan_ok=True, rel=1e-12), name
    assert report.undefined == sum(math.isnan(answer[f"ndcg@{max(k)}"]) for answer in want)
    assert report.queries == len(want)


@st.composite
def items(draw, low, *, labels):
    vectors = draw(st.lists(VECTORS, min_size=low, max_size=25))
    return vectors, draw(st.lists(labels, min_size=len(vectors), max_size=len(vectors)))


ANY = st.sampled_from([-7, 0, 3, 2**24, 2**24 + 1, 2**40])
TABLE = st.lists(st.lists(st.sampled_from([0, 1, 3]), min_size=3, max_size=3), min_size=3, max_size=3)


@pytest.mark.slow
@given(items(2, labels=ANY), st.lists(st.integers(1, 30), min_size=1, max_size=3))
@settings(deadline=None, max_examples=200)
def test_leave_one_out_matches_full_rankings(data, k):
    vectors, labels = data
    k = [min(value, len(vectors) - 1) for value in k]
    report = evaluate_retrieval(torch.tensor(vectors).float(), torch.tensor(labels), k=k)
    assert_report(report, by_hand(vectors, labels, vectors, labels, k, leave_one_out=True), k)
    assert report.gallery == len(vectors) - 1


@pytest.mark.slow
@given(items(2, labels=ANY), st.lists(st.integers(1, 30), min_size=1, max_size=3), st.integers(1, 9))
@settings(deadline=None, max_examples=200)
def test_the_symmetric_search_matches_full_rankings(data, k, sample):
    """Tiles of 8 rows; samples so small that many lists come out too short."""
    vectors, labels = data
    k = [min(value, len(vectors) - 1) for value in k]
    with small_tiles(sample=sample) as begun:
        report = evaluate_retrieval(torch.tensor(vectors).float(), torch.tensor(labels), k=k)
    assert len(begun) == 1
    assert_report(report, by_hand(vectors, labels, vectors, labels, k, leave_one_out=True), k)


@given(items(2, labels=st.integers(0, 2)), TABLE)
@settings(deadline=None)
def test_the_symmetric_search_with_graded_gains(data, table):
    vectors, labels = torch.tensor(data[0]).float(), torch.tensor(data[1])
    k = [1, len(vectors) - 1]
    with small_tiles():
        report = evaluate_retrieval(vectors, labels, k=k, gains=torch.tensor(table))
    assert_report(report, by_hand(*data, *data, k, table, leave_one_out=True), k)


@pytest.mark.parametrize(
    ("sizes", "noise", "dtype"),
    covering(
        [[1, 2, 5, 40, 300], [1] * 30 + [2] * 150, [500]],
        [0.7, 8.0],  # hits at the top; hits anywhere
        [torch.float16, torch.float32, torch.float64],
    ),
)
def test_the_symmetric_search_gives_the_same_numbers(sizes, noise, dtype):
    """To the last bit, for classes of any size, the lists of one block being of several depths."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=random)]
    vectors = torch.randn(len(sizes), 24, generator=random)[labels]
    vectors = (vectors + noise * torch.randn(len(labels), 24, generator=random)).to(dtype)
    vectors[5:9] = vectors[20:24]
    vectors[30] = 0
    plain = evaluate_retrieval(vectors, labels, k=(1, 7))
    with small_tiles(tile=48, sample=96) as begun:
        got = evaluate_retrieval(vectors, labels, k=(1, 7))
    assert len(begun) == 1
    for name, values in plain.per_query.items():
        assert torch.equal(got.per_query[name].nan_to_num(-1), values.nan_to_num(-1)), name


@pytest.mark.slow
def test_nothing_but_ties_and_lists_that_are_too_long(monkeypatch):
    """Both are left to the plain search."""
    labels = torch.arange(7000) // 4
    collapsed = evaluate_retrieval(torch.ones(7000, 4), labels, k=1)
    assert collapsed.per_query["mrr"].tolist() == [1 / (4 * label + 1) for label in labels.tolist()]
    begun = []
    monkeypatch.setattr(symmetric, "sweep", lambda *args: begun.append(args))
    evaluate_retrieval(torch.randn(7000, 4, generator=torch.Generator().manual_seed(0)), labels // 1000, k=1)
    assert begun == []


@given(items(1, labels=ANY), items(1, labels=ANY), st.integers(1, 30))
@settings(deadline=None)
def test_query_and_gallery_match_full_rankings(queries, gallery, k):
    k = min(k, len(gallery[0]))
    report = evaluate_retrieval(
        torch.tensor(queries[0]).float(),
        torch.tensor(queries[1]),
        gallery=torch.tensor(gallery[0]).float(),
        gallery_labels=torch.tensor(gallery[1]),
        k=k,
    )
    assert_report(report, by_hand(*queries, *gallery, [k], leave_one_out=False), [k])
    assert report.gallery == len(gallery[0])


@pytest.mark.slow
@given(items(2, labels=st.integers(0, 2)), items(1, labels=st.integers(0, 2)), TABLE)
@settings(deadline=None)
def test_graded_gains_match_full_rankings(data, gallery, table):
    vectors, labels = torch.tensor(data[0]).float(), torch.tensor(data[1])
    k = [1, len(vectors) - 1]
    report = evaluate_retrieval(vectors, labels, k=k, gains=torch.tensor(table))
    assert_report(report, by_hand(*data, *data, k, table, leave_one_out=True), k)
    there = {"gallery": torch.tensor(gallery[0]).float(), "gallery_labels": torch.tensor(gallery[1])}
    report = evaluate_retrieval(vectors, labels, k=1, gains=torch.tensor(table), **there)
    assert_report(report, by_hand(*data, *gallery, [1], table, leave_one_out=False), [1])


def clusters(size, classes, dim, seed=0):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (size,), generator=random)
    centres = torch.randn(classes, dim, generator=random)
    return centres[labels] + torch.randn(size, dim, generator=random), labels


@pytest.mark.parametrize("graded", [False, True])
def test_ndcg_agrees_with_scikit_learn(graded):
    ndcg_score = pytest.importorskip("sklearn.metrics", reason="extra: train").ndcg_score
    vectors, labels = clusters(200, 12, 16)
    table = torch.randint(5, (12, 12), generator=torch.Generator().manual_seed(1)) if graded else None
    report = evaluate_retrieval(vectors, labels, k=(1, 5, 199), gains=table)
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    for q in range(200):
        rest = torch.arange(200) != q
        truth = table[labels[q], labels[rest]] if graded else (labels[rest] == labels[q]).long()
        scores = (unit[rest] @ unit[q]).tolist()
        for k in (1, 5, 199):
            want = ndcg_score([truth.tolist()], [scores], k=k)
            assert report.per_query[f"ndcg@{k}"][q].item() == pytest.approx(want)


def test_agrees_with_pytorch_metric_learning():
    calculator = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator", reason="extra: compare")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference", reason="extra: compare")
    distances = pytest.importorskip("pytorch_metric_learning.distances", reason="extra: compare")
    vectors, labels = clusters(300, 20, 16)
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_reciprocal_rank")
    knn = inference.CustomKNN(distances.CosineSimilarity())
    theirs = calculator.AccuracyCalculator(include=names, k=None, device=torch.device("cpu"), knn_func=knn)
    want = theirs.get_accuracy(vectors, labels)
    got = evaluate_retrieval(vectors, labels, k=1).means
    assert got["recall@1"] == pytest.approx(want["precision_at_1"])
    assert got["r_precision"] == pytest.approx(want["r_precision"])
    assert got["map@r"] == pytest.approx(want["mean_average_precision_at_r"])
    assert got["mrr"] == pytest.approx(want["mean_reciprocal_rank"])


def test_agrees_with_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.retrieval", reason="extra: train")
    vectors, labels = clusters(120, 20, 8)
    unit = torch.nn.functional.normalize(vectors, dim=1)
    index, other = (~torch.eye(120, dtype=torch.bool)).nonzero(as_tuple=True)
    scores = (unit @ unit.T)[index, other] + 2  # above 0, where torchmetrics counts an item as retrieved
    target = labels[index] == labels[other]
    report = evaluate_retrieval(vectors, labels, k=(1, 4))
    for k in (1, 4):
        pairs = {"recall": theirs.RetrievalHitRate, "precision": theirs.RetrievalPrecision}
        for name, metric in (pairs | {"ndcg": theirs.RetrievalNormalizedDCG}).items():
            want = metric(top_k=k, empty_target_action="skip")(scores, target, indexes=index).item()
            assert report.means[f"{name}@{k}"] == pytest.approx(want, abs=1e-5)  # theirs are float32


def test_labels_beyond_float32_and_below_zero():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    labels = torch.tensor([2**24, 2**24 + 1, 2**24, 2**24 + 1])
    assert evaluate_retrieval(vectors, labels, k=1).means["recall@1"] == 0
    small = torch.tensor([-3, -3, -1, -1], dtype=torch.int8)
    assert evaluate_retrieval(vectors, small, k=1).means["recall@1"] == 1


def test_the_query_is_dropped_by_number_even_among_copies():
    vectors = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    report = evaluate_retrieval(vectors, torch.tensor([5, 7, 5, 7]), k=1)
    # item 1 ranks 0, 2, 3; item 2 ranks 0, 1, 3; item 0 ranks 1, 2, 3; item 3 ranks 0, 1, 2
    assert report.per_query["recall@1"].tolist() == [0, 0, 1, 0]
    assert report.per_query["mrr"].tolist() == pytest.approx([1 / 2, 1 / 3, 1, 1 / 2])


def test_gains_change_ndcg_alone():
    vectors, labels = clusters(60, 4, 8)
    plain = evaluate_retrieval(vectors, labels)
    same = evaluate_retrieval(vectors, labels, gains=torch.eye(4))
    other = evaluate_retrieval(vectors, labels, gains=torch.eye(4) * 2 + 1)
    for name, value in plain.per_query.items():
        assert same.per_query[name].tolist() == value.tolist()
        assert (other.per_query[name].tolist() == value.tolist()) == (not name.startswith("ndcg"))


def test_a_perfect_ranking_scores_one_exactly():
    labels = torch.arange(5).repeat_interleave(7)
    report = evaluate_retrieval(torch.eye(5)[labels], labels, k=(1, 3, 8))
    assert {name for name, mean in report.means.items() if mean != 1} == {"precision@8"}
    assert report.means["precision@8"] == 6 / 8


def test_nothing_to_find():
    report = evaluate_retrieval(torch.eye(3), torch.arange(3), k=(2, 1))
    assert all(math.isnan(mean) for mean in report.means.values())
    assert (report.undefined, report.queries, report.gallery) == (3, 3, 2)


def test_mrr_is_exact_beyond_the_neighbours_searched():
    """One pair of opposite items, 98 others between them: depth 1, first hit at rank 99."""
    vectors = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    vectors[:, 0] = 0.0
    vectors[0, 0], vectors[1, 0] = 1.0, -1.0
    vectors[:2, 1:] = 0.0
    report = evaluate_retrieval(vectors, torch.tensor([0, 0, *range(1, 99)]), k=1)
    assert report.per_query["mrr"][:2].tolist() == [1 / 99] * 2


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3000])  # a list of half the gallery per query; first hits far down
@pytest.mark.parametrize("collapsed", [False, True])  # nothing but ties
def test_memory_stays_below_the_square(classes, collapsed):
    """The neighbours of all queries would be 150 MB with two classes, the scores 144 MB."""
    size = 6000
    random = torch.Generator().manual_seed(0)
    vectors = torch.ones(size, 8) if collapsed else torch.randn(size, 8, generator=random)
    labels = torch.randint(classes, (size,), generator=random)
    with LiveMemory() as memory:
        evaluate_retrieval(vectors, labels)
    assert memory.peak <= 64 * 2**20 + 2 * vectors.nbytes + 40 * 8 * size  # the block, and a few numbers per query


def test_normalises_once(monkeypatch):
    """Also where first hits lie deeper than the neighbours searched."""
    made = []
    monkeypatch.setattr(scores, "padded_unit_rows", lambda *a, **k: made.append(a) or padded_unit_rows(*a, **k))
    vectors = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    evaluate_retrieval(vectors, torch.arange(200) // 2, k=1)
    assert len(made) == 1


def test_queries_without_a_classmate_are_counted_beside_graded_gains():
    vectors, labels = torch.eye(4)[:, :3] + 0.1, torch.tensor([0, 0, 1, 2])
    report = evaluate_retrieval(vectors, labels, k=1, gains=torch.tensor([[2, 1, 0], [1, 2, 0], [0, 0, 2]]))
    assert (report.undefined, report.undefined_of("ndcg@1"), report.undefined_of("map@r")) == (1, 1, 2)


def test_gains_of_unsigned_integers():
    table = torch.tensor([[3, 1], [1, 3]])
    same, other = (evaluate_retrieval(X, Y, k=3, gains=t).means for t in (table, table.to(torch.uint16)))
    assert same == other


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_and_gradients(dtype):
    vectors, labels = clusters(50, 5, 8)
    report = evaluate_retrieval(vectors.to(dtype).requires_grad_(), labels.int())
    same = evaluate_retrieval(vectors.to(dtype).double(), labels)
    assert report.means["map@r"] == pytest.approx(same.means["map@r"], abs=1e-3)  # near ties may swap
    assert not report.per_query["mrr"].requires_grad


def test_notes():
    assert evaluate_retrieval(torch.eye(2), torch.tensor([0, 0]), k=1, notes=["half"]).notes == ("half",)
    with pytest.raises(TypeError, match="notes must be a sequence"):
        evaluate_retrieval(torch.eye(2), torch.tensor([0, 0]), k=1, notes="half")


X, Y = torch.eye(4), torch.tensor([0, 0, 1, 1])
BAD = {
    "k above the gallery": (ValueError, "k must be at most 3, .* got 4", (X, Y), {"k": 4}),
    "default k": (ValueError, "k must be at most 3, .* got 4", (X, Y), {}),
    "k of the gallery": (
        ValueError,
        "at most 4, .* got 5",
        (X, Y),
        {"gallery": X, "gallery_labels": Y, "k": 5},
    ),
    "k 0": (ValueError, "k must be at least 1, got 0", (X, Y), {"k": 0}),
    "k bool": (TypeError, "k must be an integer, got bool True", (X, Y), {"k": True}),
    "one row": (ValueError, "at least 2 rows", (X[:1], Y[:1]), {"k": 1}),
    "list": (
        TypeError,
        "embeddings must be a torch tensor, got list; use torch.as_tensor",
        (X.tolist(), Y),
        {},
    ),
    "label list": (TypeError, "labels must be a torch tensor, got list", (X, Y.tolist()), {}),
    "array": (TypeError, "got ndarray; use torch.as_tensor", (X.numpy(), Y), {}),
    "float labels": (TypeError, "labels must have an integer dtype", (X, Y.float()), {}),
    "bool labels": (TypeError, "labels must have an integer dtype", (X, Y.bool()), {}),
    "label count": (ValueError, r"labels must have shape \(4,\)", (X, Y[:3]), {}),
    "integer vectors": (TypeError, "embeddings must be floating", (X.long(), Y), {}),
    "one vector": (ValueError, r"embeddings must have shape \(Q, D\)", (X[0], Y), {}),
    "NaN": (ValueError, "embeddings must be finite", (X * math.nan, Y), {"k": 1}),
    "NaN gallery": (
        ValueError,
        "gallery must be finite",
        (X, Y),
        {"gallery": X / 0, "gallery_labels": Y, "k": 1},
    ),
    "half a gallery": (ValueError, "come together", (X, Y), {"gallery": X}),
    "other half": (ValueError, "come together", (X, Y), {"gallery_labels": Y}),
    "width": (ValueError, "same width", (X, Y), {"gallery": X[:, :3], "gallery_labels": Y, "k": 1}),
    "device": (ValueError, "labels must hold numbers, got a tensor on the meta device", (X, Y.to("meta")), {"k": 1}),
    "device of the gallery": (
        ValueError,
        "gallery must hold numbers, got a tensor on the meta device",
        (X, Y),
        {"gallery": X.to("meta"), "gallery_labels": Y.to("meta"), "k": 1},
    ),
    "gains too large": (
        ValueError,
        "gains must be finite, 0 or more and at most 1e",
        (X, Y),
        {"k": 3, "gains": torch.full((2, 2), 1.7e308, dtype=torch.float64)},
    ),
    "gains shape": (ValueError, "gains must have shape", (X, Y), {"k": 1, "gains": torch.ones(2, 3)}),
    "gains label": (
        ValueError,
        r"labels must be class numbers in \[0, 1\)",
        (X, Y),
        {"k": 1, "gains": torch.ones(1, 1)},
    ),
}


def test_refuses(subtests):
    for error, message, arguments, options in BAD.values():
        with subtests.test(message), pytest.raises(error, match=message):
            evaluate_retrieval(*arguments, **options)


@pytest.mark.slow
def test_needs_torch_alone():
    """With numpy, torchmetrics and scikit-learn out of reach, the numbers come all the same."""
    script = (
        "import sys\n"
        "for name in ('numpy', 'torchmetrics', 'sklearn', 'scipy'): sys.modules[name] = None\n"
        "import torch\nfrom polyanchor.metrics.retrieval import evaluate_retrieval\n"
        "print(evaluate_retrieval(torch.eye(4), torch.tensor([0, 0, 1, 1]), k=1, gains=torch.eye(2)).queries)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "4", done.stderr


def test_a_gallery_that_is_the_queries_is_said():
    vectors, labels = clusters(20, 4, 8)
    same = evaluate_retrieval(vectors, labels, gallery=vectors.clone(), gallery_labels=labels)
    other = evaluate_retrieval(vectors, labels, gallery=vectors.flip(0), gallery_labels=labels.flip(0))
    assert [len(report.notes) for report in (same, other)] == [1, 0]
    assert same.means["recall@1"] == 1 and "each finds itself" in same.notes[0]
