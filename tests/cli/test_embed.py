"""The file is replaced in one step; its contents are tested in test_evaluate.py."""

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
