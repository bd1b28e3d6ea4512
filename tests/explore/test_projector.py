"""The projector's files, read by TensorBoard's own reader."""

import io

import numpy as np
import pyarrow.parquet as pq
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from polyanchor.explore import projector
from polyanchor.explore.projector import write_projector
from polyanchor.runs.embed_parts import open_rows, write_parquet


def written(run, tmp_path):
    rows, k, _ = open_rows(run)
    write_parquet(rows, tmp_path / "e.parquet", k=k)
    write_projector(tmp_path / "e.parquet", tmp_path / "projector")
    return pq.read_table(tmp_path / "e.parquet"), tmp_path / "projector"


def test_vectors_metadata_and_sprite_have_one_order(run, tmp_path):
    table, folder = written(run, tmp_path)
    (one,) = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig()).embeddings
    vectors = np.loadtxt(folder / one.tensor_path, delimiter="\t")
    assert np.allclose(vectors, np.stack(table["vector"].to_numpy()), atol=1e-5)
    head, *lines = [line.split("\t") for line in (folder / one.metadata_path).read_text().splitlines()]
    assert head == ["name", "label", "class_name", "part", "ndcg_at_8"]
    assert [line[0] for line in lines] == table["name"].to_pylist()
    sprite, side = Image.open(folder / one.sprite.image_path), one.sprite.single_image_dim[0]
    assert sprite.size == (4 * side, 4 * side)  # 16 items
    for number, cell in enumerate(table["image"].to_pylist()):
        x, y = number % 4 * side, number // 4 * side
        seen = np.asarray(sprite.crop((x, y, x + side, y + side)), float).mean((0, 1))
        true = np.asarray(Image.open(io.BytesIO(cell["bytes"])), float).mean((0, 1))
        assert np.abs(seen - true).max() < 3


def test_a_sprite_is_never_larger_than_browsers_take(run, tmp_path, monkeypatch):
    monkeypatch.setattr(projector, "_SPRITE", 100)
    _, folder = written(run, tmp_path)
    assert Image.open(folder / "sprite.png").size == (100, 100)


def test_the_folder_is_replaced(run, tmp_path):
    (tmp_path / "projector").mkdir()
    (tmp_path / "projector" / "old.tsv").touch()
    _, folder = written(run, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "metadata.tsv",
        "projector_config.pbtxt",
        "sprite.png",
        "vectors.tsv",
    ]


def test_cells_hold_no_tabs_and_no_lines():
    assert projector._cell("a\tb\nc") == "a b c"
    assert [projector._cell(value) for value in (None, 3, 0.25)] == ["", "3", "0.25"]
