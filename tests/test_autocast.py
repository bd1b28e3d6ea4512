"""Autocast changes no number outside of networks: the public functions, to the last bit, on both sides of the sizes
at which another way of computing begins."""

from contextlib import nullcontext
from dataclasses import fields, is_dataclass

import pytest
import torch

pytest.importorskip("pytorch_metric_learning", reason="extra: compare")

from polyanchor import Embeddings, MultiProxyAnchorLoss, RetrievalMetrics, evaluate_retrieval, functional
from polyanchor._kernels import LossOptions, blocks, fused_loss
from polyanchor.analysis import proxies as proxy_study
from polyanchor.analysis.gradients import CosineLoss, response, similarity_gradient, strength
from polyanchor.config.schema import LOSSES
from polyanchor.index.index import Index
from polyanchor.losses.pml import BASELINES, pml_loss
from polyanchor.metrics.relevance import gains_at_rank, ideal_dcg_graded
from polyanchor.report import map as points
from polyanchor.runs.evaluate import evaluate_embeddings
from polyanchor.search import exact
from polyanchor.search.first_match import first_match_rank, first_matches
from polyanchor.search.scores import best, leave_one_out
from polyanchor.stats.agreement import discrimination, mean_rank_agreement, pooled_deviation
from polyanchor.stats.bootstrap import bootstrap_interval, paired_bootstrap, resampled_means
from polyanchor.viz.scatter import principal_axes
from tests.search.small_tiles import small_tiles

ROWS, CLASSES = 260, 12
random = torch.Generator().manual_seed(0)
LABELS = torch.randint(CLASSES, (ROWS,), generator=random)
X = torch.randn(CLASSES, 24, generator=random)[LABELS] + torch.randn(ROWS, 24, generator=random)
PROXIES = torch.randn(CLASSES, 3, 24, generator=random)
GAINS = torch.rand(CLASSES, CLASSES, generator=random)
SCORES = torch.rand(ROWS, 40, generator=random)
HITS = SCORES > 0.6
COUNTS = HITS.sum(dim=1) + 1
OPTIONS = {name: LOSSES[name](name=name).model_dump(exclude={"name"}) for name in BASELINES}
COSINES = functional.class_similarity(X, PROXIES, pooling="max")


def with_gradients(loss, *inputs):
    leaves = [value.clone().requires_grad_() for value in inputs]
    value = loss(*leaves)
    with torch.autocast("cpu", enabled=False):  # torch asks for backward to be outside: it follows the state it meets
        value.backward()
    return value, [leaf.grad for leaf in leaves]


def fused(anchor, pooling):
    return with_gradients(
        lambda x, p: fused_loss(x, p, LABELS, LossOptions(anchor=anchor, pooling=pooling)), X, PROXIES
    )


def loss(impl):
    return with_gradients(lambda x, p: functional.multi_proxy_anchor_loss(x, p, LABELS, impl=impl), X, PROXIES)


def module():
    torch.manual_seed(0)
    made = MultiProxyAnchorLoss(CLASSES, 24, center_reg=0.1)
    return with_gradients(lambda x: made(x, LABELS), X), made.proxies.grad


def library(name):
    torch.manual_seed(0)
    return with_gradients(lambda x: pml_loss(name, CLASSES, 24, **OPTIONS[name])(x, LABELS), X)


def metric():
    made = RetrievalMetrics(k=(1, 4))
    for rows in torch.arange(ROWS).split(64):
        made.update(X[rows], LABELS[rows])
    return made.compute()


def index(folder, kind):
    def call():
        made = Index.create(folder() / kind, dim=24, kind=kind)
        made.add(X)
        return [[(hit.id, hit.score) for hit in hits] for hits in made.search(X[:20], 5)]

    return call


def seeded():
    torch.manual_seed(0)
    return MultiProxyAnchorLoss(CLASSES, 24)


CASES = {
    "evaluate_retrieval": lambda: evaluate_retrieval(X, LABELS, k=(1, 4)),
    "evaluate_retrieval, gains": lambda: evaluate_retrieval(X, LABELS, k=(1, 4), gains=GAINS),
    "evaluate_retrieval, gallery": lambda: evaluate_retrieval(
        X[:50], LABELS[:50], gallery=X[50:], gallery_labels=LABELS[50:]
    ),
    "evaluate_retrieval, halves": lambda: evaluate_retrieval(X.half(), LABELS),
    "evaluate_embeddings": lambda: evaluate_embeddings(Embeddings(X, LABELS, sublabels=LABELS % 3), k=[1]),
    "RetrievalMetrics": metric,
    "search": lambda: exact.search(X, X[7:], 5),
    "search_others": lambda: exact.search_others(X, 5),
    "best": lambda: best(SCORES, 7),
    "first_matches": lambda: first_matches(leave_one_out(X), LABELS),
    "first_match_rank": lambda: first_match_rank(SCORES, torch.arange(ROWS), LABELS, LABELS[:40]),
    "gains_at_rank": lambda: gains_at_rank(torch.arange(40).expand(ROWS, 40), LABELS, LABELS, GAINS.double()),
    "ideal_dcg_graded": lambda: ideal_dcg_graded(LABELS, GAINS.double(), (1, 5)),
    "principal_axes": lambda: principal_axes(X),
    "measures": lambda: {
        "dcg": functional.dcg(SCORES),
        "ideal_gains": functional.ideal_gains(SCORES, torch.arange(40), k=9),
        "ideal_dcg_binary": functional.ideal_dcg_binary(COUNTS, k=9),
        "ndcg_at_k": functional.ndcg_at_k(HITS, functional.ideal_dcg_binary(COUNTS, k=40)),
        "recall_at_k": functional.recall_at_k(HITS, COUNTS),
        "precision_at_k": functional.precision_at_k(HITS, COUNTS),
        "reciprocal_rank": functional.reciprocal_rank(COUNTS),
        "r_precision": functional.r_precision(HITS, COUNTS),
        "map_at_r": functional.map_at_r(HITS, COUNTS),
    },
    "unit_rows": lambda: with_gradients(lambda x: functional.unit_rows(x).prod(dim=0).sum(), X),
    "center_regularizer": lambda: with_gradients(lambda p: functional.center_regularizer(p), PROXIES),
    "log1p_sum_exp": lambda: functional.log1p_sum_exp(SCORES, HITS, dim=1),
    "anchor_loss": lambda: with_gradients(lambda s: functional.anchor_loss(s, LABELS), COSINES),
    "multi_proxy_anchor_loss": lambda: {impl: loss(impl) for impl in ("eager", "fused")},
    "fused_loss": lambda: {
        f"{anchor}, {pooling}": fused(anchor, pooling)
        for anchor in ("class", "data", "mixed")
        for pooling in ("softmax", "max", "logsumexp")
    },
    "class_similarity": lambda: {
        pooling: with_gradients(
            lambda x, p, pooling=pooling: functional.class_similarity(x, p, pooling=pooling).square().sum(), X, PROXIES
        )
        for pooling in ("softmax", "max", "logsumexp")
    },
    "MultiProxyAnchorLoss": module,
    "baselines": lambda: {name: library(name) for name in BASELINES},
    "study_proxies": lambda: proxy_study.study_proxies(Embeddings(X, LABELS), PROXIES, torch.arange(CLASSES)),
    "similarity_gradient": lambda: strength(similarity_gradient(seeded(), X, LABELS)),
    "response": lambda: response(CosineLoss(seeded()), X[:9], LABELS[:9], torch.arange(2)),
    "statistics": lambda: {
        "bootstrap": bootstrap_interval(SCORES[:, 0], LABELS, resamples=50),
        "paired_bootstrap": paired_bootstrap(SCORES[:, :2], SCORES[:, 2:4], resamples=50),
        "resampled_means": resampled_means(SCORES, LABELS, resamples=50),
        "pooled_deviation": pooled_deviation(SCORES),
        "discrimination": discrimination(SCORES),
        "mean_rank_agreement": mean_rank_agreement(SCORES[:, :3]),
    },
}


def flat(value, path=""):
    """The numbers of an answer, whatever it is made of, by where in it they stand."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        return {name: part for key, item in value.items() for name, part in flat(item, f"{path}/{key}").items()}
    return {path: value.detach() if isinstance(value, torch.Tensor) else value}


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first.nan_to_num(-7), second.nan_to_num(-7))
    return first == second or (first != first and second != second)


def assert_unmoved(call, around=nullcontext):
    with around():
        plain = flat(call())
    with around(), torch.autocast("cpu", dtype=torch.bfloat16):
        cast = flat(call())
    assert plain.keys() == cast.keys()
    for path, number in plain.items():
        assert same(number, cast[path]), (path, number, cast[path])


@pytest.mark.parametrize("name", CASES)
def test_autocast_changes_nothing(name):
    assert_unmoved(CASES[name])


@pytest.mark.parametrize(
    "name", ["evaluate_retrieval", "evaluate_retrieval, gains", "search_others", "RetrievalMetrics"]
)
def test_nor_in_the_symmetric_search(name):
    with small_tiles(tile=48, sample=96) as begun:
        assert_unmoved(CASES[name])
    assert len(begun) == 2


def test_nor_in_the_symmetric_search_of_a_large_gallery():
    labels = torch.arange(6_100) // 4
    vectors = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(0))
    assert_unmoved(lambda: evaluate_retrieval(vectors, labels, k=(1, 4)))


@pytest.mark.parametrize("name", ["fused_loss", "multi_proxy_anchor_loss"])
def test_nor_in_a_loss_of_many_blocks(name, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SCORES", 0)
    monkeypatch.setattr(blocks, "FEWEST_PROXIES", 6)
    assert_unmoved(CASES[name])


def test_nor_in_a_plane_of_points():
    rows = torch.randn(80, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_unmoved(lambda: points._tsne(rows))


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_nor_in_an_index(tmp_path_factory, kind):
    assert_unmoved(index(lambda: tmp_path_factory.mktemp("index"), kind))
