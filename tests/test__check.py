"""Whatever stands in the place of an argument, the answer is a sentence about it, or a number, and never torch's."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from polyanchor import MultiProxyAnchorLoss, _check, evaluate_retrieval, functional
from polyanchor._errors import InputError
from polyanchor.search import exact
from polyanchor.stats import agreement
from polyanchor.stats import bootstrap as queries
from polyanchor.stats import intervals as seeds

X, P, Y = torch.randn(4, 3), torch.randn(5, 2, 3), torch.tensor([0, 1, 2, 0])
HITS, N = torch.tensor([[True, False, True]] * 2), torch.tensor([2, 3])
LOSS: dict[str, Any] = {"embeddings": X, "proxies": P, "labels": Y}
GROUPS = torch.tensor([0, 0, 1, 1])
CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "loss": (functional.multi_proxy_anchor_loss, {**LOSS, "alpha": 32.0, "delta": 0.1, "gamma": 0.1, "anchor": "data"}),
    "eager loss": (lambda **given: functional.multi_proxy_anchor_loss(impl="eager", **given), LOSS),
    "anchor_loss": (
        functional.anchor_loss,
        {"similarity": X, "labels": Y, "anchor": "class", "alpha": 9.0, "delta": 0},
    ),
    "log1p_sum_exp": (functional.log1p_sum_exp, {"exponents": X, "members": X > 0, "dim": 1}),
    "class_similarity": (functional.class_similarity, {"embeddings": X, "proxies": P, "gamma": 0.1}),
    "pool": (functional.pool, {"similarity": P, "pooling": "max", "gamma": 0.1}),
    "unit_rows": (functional.unit_rows, {"vectors": X}),
    "center_regularizer": (functional.center_regularizer, {"proxies": P}),
    "dcg": (functional.dcg, {"gains": X}),
    "ideal_gains": (functional.ideal_gains, {"gains": X.abs(), "counts": Y[:3], "k": 2}),
    "ideal_dcg_binary": (functional.ideal_dcg_binary, {"n_relevant": N, "k": 2}),
    "ndcg_at_k": (functional.ndcg_at_k, {"gains_at_rank": HITS, "ideal_dcg": torch.ones(2)}),
    "recall_at_k": (functional.recall_at_k, {"hits": HITS, "n_relevant": N}),
    "map_at_r": (functional.map_at_r, {"hits": HITS, "n_relevant": N}),
    "reciprocal_rank": (functional.reciprocal_rank, {"first_rank": N}),
    "module": (MultiProxyAnchorLoss(5, 3), {"embeddings": X, "labels": Y}),
    "options": (
        lambda **given: MultiProxyAnchorLoss(5, 3, **given),
        {"alpha": 9.0, "delta": 0.1, "gamma": 1, "center_reg": 1},
    ),
    "search": (exact.search, {"queries": X, "gallery": P[:, 0], "k": 1, "block_bytes": 1000}),
    "search_others": (exact.search_others, {"embeddings": X, "k": 1}),
    "evaluate_retrieval": (
        evaluate_retrieval,
        {"embeddings": X, "labels": Y, "gallery": X + 1, "gallery_labels": Y, "k": 1, "gains": torch.ones(3, 3)},
    ),
    "pooled_deviation": (agreement.pooled_deviation, {"values": X}),
    "discrimination": (agreement.discrimination, {"values": X}),
    "mean_rank_agreement": (agreement.mean_rank_agreement, {"values": X}),
    "bootstrap_interval": (
        queries.bootstrap_interval,
        {"values": X[:, 0], "groups": GROUPS, "resamples": 9, "confidence": 0.9, "seed": 0},
    ),
    "paired_bootstrap": (queries.paired_bootstrap, {"first": X, "second": X + 1, "groups": GROUPS, "resamples": 9}),
    "mean_interval": (seeds.mean_interval, {"values": [1.0, 2.0], "confidence": 0.9}),
    "paired_t": (seeds.paired_t, {"first": [1.0, 2.0], "second": [2.0, 4.0], "confidence": 0.9}),
    "holm": (seeds.holm, {"p_values": [0.1, 0.2]}),
}
NONE_IS_AN_ANSWER = {"gains", "groups"}


def instead_of(value: Any) -> dict[str, Any]:
    """What people have passed in its place."""
    if isinstance(value, Tensor):
        return {
            "sparse": value.to_sparse(),
            "meta": value.to("meta"),
            "complex": value.to(torch.complex64),
            "nested": torch.nested.nested_tensor([value]),
            "list": value.tolist(),
            "array": value.numpy(),
            "another shape": value[None, None, None],
        }
    if isinstance(value, str):
        return {"two": torch.ones(2), "list": [value], "unknown": "no such"}
    if isinstance(value, list):
        return {"words": ["a", "b"], "matrix": torch.ones(2, 2), "nothing in it": [None, None], "word": "ab"}
    return {"two": torch.ones(2), "one": torch.tensor(1.0), "word": "3", "NaN": float("nan"), "i": 1j, "yes": True}


@pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors", "ignore:Sparse CSR"
)  # torch: made to be refused
@pytest.mark.parametrize("call", CALLS)
def test_every_argument_is_checked(subtests, call):
    function, arguments = CALLS[call]
    function(**arguments)
    for name, value in arguments.items():
        wrong = instead_of(value)
        if name not in NONE_IS_AN_ANSWER | {"gallery", "gallery_labels"} and (call, name) != (
            "paired_bootstrap",
            "resamples",
        ):
            wrong["None"] = None
        if (call, name) in {("pool", "similarity"), ("unit_rows", "vectors")}:
            del wrong["another shape"]  # these take any
        for kind, other in wrong.items():
            with subtests.test(f"{name} as {kind}"):
                with pytest.raises(InputError) as caught:
                    function(**{**arguments, name: other})
                assert len(str(caught.value)) < 400


def test_numbers_of_numpy_are_numbers():
    usual = functional.multi_proxy_anchor_loss(**LOSS, alpha=16.0, gamma=0.5, delta=0.0)
    other = functional.multi_proxy_anchor_loss(**LOSS, alpha=np.float32(16), gamma=np.float16(0.5), delta=np.int64(0))
    assert usual == other


@pytest.mark.parametrize("pooling", ["softmax", "max", "logsumexp"])
def test_proxies_that_are_not_finite_are_named(subtests, pooling):
    words = "proxies must be finite, got NaN or infinity in 1 of 5 rows, first in row 3"
    for impl, value in product(("eager", "fused"), (float("nan"), float("inf"))):
        with subtests.test(impl, value=value):
            proxies = P.clone()
            proxies[3, 1, 2] = value
            with pytest.raises(_check.NotFiniteError, match=words):
                functional.multi_proxy_anchor_loss(X, proxies, Y, impl=impl, pooling=pooling)
            with pytest.raises(_check.NotFiniteError, match=words):
                functional.center_regularizer(proxies)


def test_infinite_and_missing_numbers_do_not_pass_for_others():
    infinite = torch.tensor([1.0, torch.inf])
    with pytest.raises(InputError, match="finite, or NaN where undefined"):
        queries.bootstrap_interval(infinite)
    with pytest.raises(InputError, match="gains_at_rank must be finite"):
        functional.ndcg_at_k(torch.tensor([[torch.nan]]), torch.ones(1))
    with pytest.raises(InputError, match="finite and 0 or more"):
        functional.ideal_gains(infinite[None], torch.tensor([1, 1]), k=1)
    with pytest.raises(InputError, match=r"p_values must lie in \[0, 1\]"):
        seeds.holm([0.1, 2.0])
