"""Integers of any library are integers, everywhere; a bool is none."""

import pytest
import torch

from polyanchor import MultiProxyAnchorLoss, _check, embed_in_micro_batches, evaluate_retrieval, functional
from polyanchor.config.schema import Config
from polyanchor.datasets.samplers import ClassBalancedBatches, ShuffledBatches
from polyanchor.index.index import Index
from polyanchor.models.embedding import create_model
from polyanchor.search.exact import search, search_others

np = pytest.importorskip("numpy", reason="extra: train")
KINDS = {
    "np.int64": np.int64,
    "np.uint8": np.uint8,
    "np.array": np.array,
    "tensor": torch.tensor,
    "tensor int8": lambda value: torch.tensor(value, dtype=torch.int8),
}
X, Y = torch.eye(8), torch.arange(8) // 2


def index(folder, n):
    made = Index.create(folder / "index", dim=n(8))
    made.add(X)
    hits = made.search(X[:1], n(3))
    return [hit.id for hit in hits[0]], Index.open(folder / "index").about.dim


CASES = {
    "evaluate_retrieval": lambda n, _: evaluate_retrieval(X, Y, k=n(2)).means,
    "evaluate_retrieval, several": lambda n, _: list(evaluate_retrieval(X, Y, k=[n(2), 1]).means),
    "search": lambda n, _: search(X, X, n(3)).ids.tolist(),
    "search_others": lambda n, _: search_others(X, n(3)).ids.tolist(),
    "ideal_gains": lambda n, _: functional.ideal_gains(torch.ones(1, 2), torch.tensor([1, 2]), k=n(3)).tolist(),
    "ideal_dcg_binary": lambda n, _: functional.ideal_dcg_binary(Y, k=n(3)).tolist(),
    "MultiProxyAnchorLoss": lambda n, _: MultiProxyAnchorLoss(n(4), n(8), proxies_per_class=n(2)).proxies.shape,
    "create_model": lambda n, _: repr(create_model("none", features=n(8), embedding_dim=n(2))),
    "embed_in_micro_batches": lambda n, _: embed_in_micro_batches(torch.nn.Identity(), X, n(3)).tolist(),
    "ClassBalancedBatches": lambda n, _: list(ClassBalancedBatches(Y, classes=n(2), images=n(2), seed=n(3))),
    "ShuffledBatches": lambda n, _: list(ShuffledBatches(n(8), size=n(3), seed=n(0), rank=n(0), ranks=n(2))),
    "index": lambda n, folder: index(folder, n),
    "Config": lambda n, _: Config(
        run={"epochs": n(3), "k": [n(1), n(2)]}, batches={"classes_per_batch": n(5)}
    ).model_dump_json(),
    "Config, one k": lambda n, _: Config(run={"k": n(2), "monitor": "mrr"}).model_dump_json(),
}


@pytest.mark.parametrize("name", CASES)
def test_integers_of_other_libraries(subtests, name, tmp_path):
    (tmp_path / "int").mkdir()
    want = CASES[name](int, tmp_path / "int")
    for kind, integer in KINDS.items():
        with subtests.test(kind):
            (tmp_path / kind).mkdir()
            assert CASES[name](integer, tmp_path / kind) == want


def test_floats_of_other_libraries_in_a_configuration():
    for number in (np.float32(0.5), np.float64(0.5), torch.tensor(0.5)):
        made = Config(optim={"lr": number}, images={"scale": (number, np.float64(1))})
        assert type(made.optim.lr) is float
        assert made.model_dump_json() == Config(optim={"lr": 0.5}, images={"scale": (0.5, 1.0)}).model_dump_json()


def test_no_integers(subtests):
    for value in (True, np.True_, torch.tensor(True), 1.0, np.float64(1), torch.tensor(1.0), "1", None):
        with subtests.test(repr(value)):
            for check in (_check.count, _check.at_least_0, _check.integer):
                with pytest.raises(TypeError, match="k must be an integer, got"):
                    check("k", value)


def test_bounds():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        _check.count("k", np.int64(0))
    with pytest.raises(ValueError, match="0 or more, got -1"):
        _check.at_least_0("k", np.int64(-1))
