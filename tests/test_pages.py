"""The public pages: their names, and that the documentation imports from nowhere else."""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

import polyanchor

ROOT = Path(__file__).parent.parent
SOURCE = Path(polyanchor.__file__).parent

PAGES = {
    "polyanchor": "Config Embedder Embeddings Index Interval MultiProxyAnchorLoss Neighbours RetrievalMetrics "
    "RetrievalReport embed_in_micro_batches evaluate_retrieval load_config train",
    "polyanchor.analysis": "ProxyStudy SimilarityGradient Strength agreement pull_push_curve response "
    "similarity_gradient strength study_proxies",
    "polyanchor.compare": "compare",
    "polyanchor.datasets": "Batch ClassBalancedBatches EpochBatches ItemDataset Items ShuffledBatches Split collate "
    "hold_out_classes open_items open_source split_by_class test_transform train_transform",
    "polyanchor.deploy": "Embedder Exported open_embedder",
    "polyanchor.distributed": "DataParallelLoss ShardedMultiProxyAnchorLoss draw_sample load_sharded save_sharded "
    "step_samples",
    "polyanchor.functional": "Anchor Impl Pooling anchor_loss center_regularizer class_similarity dcg "
    "ideal_dcg_binary ideal_gains log1p_sum_exp map_at_r multi_proxy_anchor_loss ndcg_at_k pool precision_at_k "
    "r_precision recall_at_k reciprocal_rank unit_rows",
    "polyanchor.index": "Hit Index Recall measure_recall",
    "polyanchor.losses": "MultiProxyAnchorLoss PmlLoss draw_proxies fixed_lengths pml_loss",
    "polyanchor.metrics": "RetrievalMetrics evaluate_retrieval gains_at_rank hits_at_rank ideal_dcg_graded "
    "relevant_counts",
    "polyanchor.models": "EmbeddingModel create_model embed_in_micro_batches",
    "polyanchor.runs": "embed_run evaluate_items evaluate_run",
    "polyanchor.samplers": "ClassBalancedBatches EpochBatches ShuffledBatches",
    "polyanchor.search": "search search_blocks search_others search_others_blocks",
    "polyanchor.stats": "Paired bootstrap_interval discrimination holm mean_interval mean_rank_agreement "
    "paired_bootstrap paired_t pooled_deviation rank_agreement resampled_means",
}
UNPAGED = {"polyanchor.deploy.export.export"}  # the module of the same name stands in its way


def public_names(page: str) -> set[str]:
    """What completion offers, without submodules and the helpers of the page itself."""
    module = importlib.import_module(page)
    names = {name for name in dir(module) if not isinstance(getattr(module, name), ModuleType) and name[0] != "_"}
    return names - {"TYPE_CHECKING", "annotations", "lazy_names", "load"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_its_names_and_each_can_be_imported(page):
    assert public_names(page) == set(PAGES[page].split())
    assert all(getattr(importlib.import_module(page), name) is not None for name in PAGES[page].split())


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in ("polyanchor.functional", "polyanchor.samplers")]
)
def test_type_checkers_see_the_same_names(page):
    source = SOURCE.joinpath(*page.split(".")[1:], "__init__.py").read_text()
    typed = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    names = {alias.asname for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    pages = {name.rpartition(".")[2] for name in PAGES if "." in name} if page == "polyanchor" else set()
    assert names == set(PAGES[page].split()) | pages


def test_every_page_is_an_attribute_of_the_package():
    for page in PAGES:
        if "." in page:
            assert getattr(polyanchor, page.partition(".")[2]) is importlib.import_module(page)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'polyanchor.losses' has no attribute 'fixed_length'"):
        _ = polyanchor.losses.fixed_length


def imported_by_the_documentation() -> set[tuple[str, str, str]]:
    found = set()
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = path.read_text(encoding="utf-8")
        for page, names in re.findall(r"^(?:>>> )? *from (polyanchor[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
            found |= {(path.name, page, name.split(" as ")[0].strip()) for name in names.split(",")}
        for name in set(re.findall(r"^::: (polyanchor[\w.]+)$", text, re.MULTILINE)) - UNPAGED:
            found.add((path.name, *name.rpartition(".")[::2]))
        for page, name in re.findall(r"\bpa\.(?:(\w+)\.)?([a-zA-Z_]\w+)\(", text):
            found.add(
                (
                    path.name,
                    f"polyanchor.{page}" if page and page.islower() else "polyanchor",
                    page if page[:1].isupper() else name,
                )
            )
    return found


def test_the_documentation_imports_from_pages_alone():
    names = {page: set(listed.split()) for page, listed in PAGES.items()}
    names["polyanchor"] |= {page.partition(".")[2] for page in PAGES}
    assert len(imported_by_the_documentation()) > 50
    assert [use for use in sorted(imported_by_the_documentation()) if use[2] not in names.get(use[1], ())] == []
