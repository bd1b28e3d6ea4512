"""The table: what stands in a row belongs together, and other readers see it too."""

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from polyanchor.datasets.sources import open_items
from polyanchor.runs import embed_parts as parquet
from polyanchor.runs.embed_parts import Rows, open_rows, write_parquet
from polyanchor.runs.folder import RunFolder
from polyanchor.types import Embeddings


@pytest.fixture
def table(run, tmp_path):
    rows, k, _ = open_rows(run, split="all")
    write_parquet(rows, tmp_path / "e.parquet", k=k)
    return pq.read_table(tmp_path / "e.parquet"), rows


def test_rows_belong_together(table, photos):
    found, _ = table
    assert found.num_rows == 48 and found["split"].to_pylist() == ["train"] * 16 + ["validation"] * 16 + ["test"] * 16
    for row in found.to_pylist():
        assert row["name"].partition("/")[0] == row["class_name"] == f"class{row['label']}"
        seen = Image.open(io.BytesIO(row["image"]["bytes"]))
        true = Image.open(photos / row["name"])
        assert seen.size == true.size  # smaller than a thumbnail: left as it is
        assert np.abs(np.asarray(seen, float).mean((0, 1)) - np.asarray(true, float).mean((0, 1))).max() < 3
        assert row["image"]["path"] == row["name"]
    assert np.allclose(np.linalg.norm(np.stack(found["vector"].to_numpy()), axis=1), 1, atol=1e-5)


def test_ndcg_is_what_the_run_measured(table, run):
    found, _ = table
    values = found["ndcg_at_8"].to_pylist()
    assert values[:32] == [None] * 32
    assert values[32:] == pytest.approx(RunFolder(run).read_per_query()["ndcg@8"].tolist())


def test_it_is_a_data_source_again(table, tmp_path):
    found, _ = table
    items = open_items(f"parquet:{tmp_path / 'e.parquet'}")
    assert items.labels.tolist() == found["label"].to_pylist()
    assert items.inputs.read(5).size == (16, 16)


def test_large_images_are_small_here(run, photos, tmp_path):
    Image.new("RGB", (900, 300), (200, 10, 10)).save(photos / "class5" / "0.png")
    rows, k, _ = open_rows(run)
    write_parquet(rows, tmp_path / "e.parquet", k=k)
    row = next(row for row in pq.read_table(tmp_path / "e.parquet").to_pylist() if row["name"] == "class5/0.png")
    assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (128, 43)


def test_groups_of_rows_join_to_the_same_table(table, run, tmp_path, monkeypatch):
    found, rows = table
    monkeypatch.setattr(parquet, "_GROUP", 5)
    write_parquet(rows, tmp_path / "small.parquet", k=8)
    assert pq.read_table(tmp_path / "small.parquet").equals(found)


def test_features_say_what_hugging_face_wants(table):
    found, _ = table
    features = json.loads(found.schema.metadata[b"huggingface"])["info"]["features"]
    assert set(features) == set(found.column_names)
    assert features["image"] == {"_type": "Image"}
    datasets = pytest.importorskip("datasets", reason="the library itself reads it where it is installed")
    assert datasets.Features.from_dict(features)


def test_vectors_undefined_queries_and_sub_classes(tmp_path):
    items_labels = torch.tensor([3, 3, 9])
    from polyanchor.datasets.items import Items

    items = Items(torch.eye(3), items_labels, names=("a", "b", "c"), sublabels=torch.tensor([0, 1, 2]))
    found = Embeddings(torch.eye(3), items_labels, ("a", "b", "c"), {3: "three"}, items.sublabels)
    ndcg = torch.tensor([1.0, 0.5, float("nan")], dtype=torch.float64)
    write_parquet([Rows("test", items, found, ndcg)], tmp_path / "e.parquet", k=4)
    assert pq.read_table(tmp_path / "e.parquet").drop_columns(["vector"]).to_pylist() == [
        {"name": "a", "label": 3, "class_name": "three", "split": "test", "ndcg_at_4": 1.0, "sublabel": 0},
        {"name": "b", "label": 3, "class_name": "three", "split": "test", "ndcg_at_4": 0.5, "sublabel": 1},
        {"name": "c", "label": 9, "class_name": "9", "split": "test", "ndcg_at_4": None, "sublabel": 2},
    ]
