"""The file is replaced in one step; its contents are tested in test_evaluate.py, and test_parquet.py for tables."""

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from polyanchor.cli.app import run
from tests.tiny_runs import arguments


def test_a_failed_embedding_leaves_the_old_file(photos, tmp_path, capsys):
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run")]) == 0
    old = tmp_path / "old.safetensors"
    old.write_text("precious")
    (photos / "class4" / "0.png").write_bytes(b"no image")
    assert run(["embed", str(tmp_path / "run"), "--out", str(old)]) == 2
    assert "0.png" in capsys.readouterr().err
    assert old.read_text() == "precious"


@pytest.mark.slow
def test_the_suffix_decides_what_is_written(photos, tmp_path, capsys):
    assert run(["train", *arguments(photos, "run.epochs=1"), "--out", str(tmp_path / "run")]) == 0
    table = tmp_path / "new" / "x.parquet"
    assert run(["embed", str(tmp_path / "run"), "--split", "all", "--out", str(table)]) == 0
    assert f"48 items are in {table}; look at them with: embedding-atlas {table} --vector vector --image image\n" in (
        capsys.readouterr().err
    )
    assert run(["embed", str(tmp_path / "run"), "--data", f"folder:{photos}", "--out", str(table)]) == 0
    rows = pq.read_table(table).to_pylist()
    assert len(rows) == 48 and all(0 <= row["ndcg_at_8"] <= 1 for row in rows)
    (photos / "class4" / "0.png").write_bytes(b"no image")
    assert run(["embed", str(tmp_path / "run"), "--on-bad-image", "skip", "--out", str(table)]) == 0
    assert "0.png" in capsys.readouterr().err and pq.read_table(table).num_rows == 15
    assert run(["embed", str(tmp_path / "run"), "--split", "tests", "--out", str(table)]) == 2
    assert "did you mean 'test'" in capsys.readouterr().err
    assert run(["embed", str(tmp_path / "run"), "--out", str(tmp_path / "x.csv")]) == 2
    assert ".safetensors, or in .parquet" in capsys.readouterr().err


def test_a_table_of_vectors_has_no_image_column(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"vectors": torch.randn(40, 6), "labels": torch.arange(40) % 8}, "f.safetensors")
    settings = ["data.source=features:f.safetensors", "model.backbone=none", "run.epochs=1", "model.embedding_dim=4"]
    assert run(["train", *[f"--{line}" for line in settings], "--out", "run"]) == 0
    assert run(["embed", "run", "--out", "x.parquet"]) == 0
    assert capsys.readouterr().err.endswith("embedding-atlas x.parquet --vector vector\n")
    assert "image" not in pq.read_table("x.parquet").column_names


@pytest.mark.parametrize("words", [["run", "--no-start"], ["--out", "x"]])
def test_the_command_that_is_gone_names_its_successor(words, capsys):
    assert run(["explore", *words]) == 2
    assert "polyanchor embed RUN --out x.parquet" in capsys.readouterr().err
