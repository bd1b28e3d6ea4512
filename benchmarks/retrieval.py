"""The evaluations that are measured: ours, the peers', one full product, all on the same embeddings.

Every evaluation is leave-one-out over N unit vectors, and returns its recall@1, so that a script can see that all of
them did the same work (None where there is no such number).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch

import polyanchor as pa

Evaluation = Callable[[], float | None]
OURS, PRODUCT = "polyanchor evaluate_retrieval", "one full product"
PML, OML, TORCHMETRICS, FAISS = (
    "pytorch-metric-learning AccuracyCalculator",
    "open-metric-learning RetrievalResults",
    "torchmetrics.retrieval",
    "faiss IndexFlatIP, search alone",
)
CUTOFFS = 1, 2, 4, 8
ROWS = 1_024  # of a block of the full product


class Gallery:
    """N unit vectors around class centres; class sizes are uniform within 40 % of ``per_class``."""

    def __init__(self, items: int, per_class: int, dim: int = 512) -> None:
        torch.manual_seed(0)
        self.items, self.per_class, self.dim = items, per_class, dim
        sizes = torch.randint(round(0.6 * per_class), round(1.4 * per_class) + 1, (items,))
        self.labels = torch.arange(items).repeat_interleave(sizes)[:items]
        centres = torch.randn(int(self.labels.max()) + 1, dim)
        # twice as much noise as centre: an item's own class is found at rank 1 often, but not always
        noisy = centres[self.labels] + 2 * torch.randn(items, dim)
        order = torch.randperm(items)
        self.vectors, self.labels = torch.nn.functional.normalize(noisy)[order], self.labels[order]
        self.depth = max(int(self.labels.bincount().max()) - 1, max(CUTOFFS))  # R-precision and MAP@R look so deep

    @property
    def case(self) -> dict[str, int]:
        """The shapes, as the file of results names them."""
        return {"N": self.items, "D": self.dim, "items per class": self.per_class}

    def ours(self) -> float:
        """Recall, precision and nDCG at four cut-offs, MRR, R-precision, MAP@R, one value per query."""
        return pa.evaluate_retrieval(self.vectors, self.labels, k=CUTOFFS).means["recall@1"]

    def product(self) -> Evaluation:
        """Every similarity once, in blocks of rows, into memory that is already there; nothing is done with them."""
        scores = torch.empty(min(ROWS, self.items), self.items)

        def run() -> None:
            for block in self.vectors.split(ROWS):
                torch.mm(block, self.vectors.t(), out=scores[: len(block)])

        return run

    def faiss(self) -> float | None:
        """The exact search to the same depth, without any measure."""
        import faiss

        index = faiss.IndexFlatIP(self.dim)
        index.add(self.vectors.numpy())
        index.search(self.vectors.numpy(), self.depth + 1)  # the query itself is one of them

    def pml(self) -> float:
        """P@1, MRR, R-precision and MAP@R. With its default ``k=None`` it would keep N - 1 neighbours of each query."""
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

        names = "precision_at_1", "mean_reciprocal_rank", "r_precision", "mean_average_precision_at_r"
        calculator = AccuracyCalculator(include=names, k="max_bin_count", device=torch.device("cpu"))
        return calculator.get_accuracy(self.vectors, self.labels)["precision_at_1"]

    def oml(self) -> float:
        """CMC and precision at four cut-offs, MAP at the same depth as ours."""
        from oml.functional.knn import batched_knn
        from oml.functional.metrics import calc_retrieval_metrics

        ids = torch.arange(self.items)
        _, found, relevant = batched_knn(self.vectors, ids, ids, top_n=self.depth, labels_gt=self.labels)
        means = calc_retrieval_metrics(
            found, relevant, cmc_top_k=CUTOFFS, precision_top_k=CUTOFFS, map_top_k=(self.depth,), verbose=False
        )
        return float(means["cmc"][1])

    def torchmetrics(self) -> float:
        """Hit rate, precision and nDCG at four cut-offs, MRR, MAP, R-precision, from all N x N pairs."""
        from torchmetrics import MetricCollection, retrieval

        metrics = {"mrr": retrieval.RetrievalMRR(), "map": retrieval.RetrievalMAP()}
        metrics["r"] = retrieval.RetrievalRPrecision()
        for k in CUTOFFS:
            metrics[f"hit@{k}"] = retrieval.RetrievalHitRate(top_k=k)
            metrics[f"precision@{k}"] = retrieval.RetrievalPrecision(top_k=k)
            metrics[f"ndcg@{k}"] = retrieval.RetrievalNormalizedDCG(top_k=k)
        everything = MetricCollection(metrics, compute_groups=[list(metrics)])  # they share the pairs
        others = ~torch.eye(self.items, dtype=torch.bool)
        scores = (self.vectors @ self.vectors.t() + 2)[others]  # above 0: it takes other scores for misses
        hits = (self.labels[:, None] == self.labels)[others]
        queries = torch.arange(self.items)[:, None].expand(-1, self.items)[others]
        everything.update(scores, hits, indexes=queries)
        return float(everything.compute()["hit@1"])

    def peers(self, *names: str) -> dict[str, Evaluation]:
        """Those of ``names`` that are installed."""
        known: dict[str, tuple[str, Evaluation]] = {
            PML: ("pytorch_metric_learning", self.pml),
            OML: ("oml", self.oml),
            TORCHMETRICS: ("torchmetrics", self.torchmetrics),
            FAISS: ("faiss", self.faiss),
        }
        return {name: known[name][1] for name in names if find_spec(known[name][0]) is not None}


def agree(values: dict[str, float | None], tolerance: float = 1e-3) -> None:
    """Refuse to time different things: everybody's recall@1 is the same, ties aside."""
    found = {name: value for name, value in values.items() if value is not None}
    if max(found.values()) - min(found.values()) > tolerance:
        raise AssertionError(f"the evaluations disagree on recall@1: {found}")
