"""``~`` is the home folder wherever Python takes a path, as it is on the command line."""

from pathlib import Path

import pytest

from polyanchor.deploy.embedder import Embedder
from polyanchor.deploy.export import export
from polyanchor.index.index import Index
from polyanchor.report.write import write_report
from polyanchor.runs.load import evaluate_run
from polyanchor.training.train import train
from tests.tiny_runs import config


@pytest.mark.slow
def test_the_home_folder_is_known_wherever_python_takes_a_path(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").symlink_to(photos)
    settings = config("~/pictures", "run.epochs=1")
    train(settings, "~/run")
    saved = Embedder.from_run("~/run")
    saved.save_pretrained("~/saved")
    assert Embedder.from_pretrained("~/saved").fingerprint == saved.fingerprint
    export(saved, "safetensors", Path("~/exported"))
    write_report(Path("~/run"), Path("~/report.html"), tsne=False)
    assert evaluate_run(Path("~/run")).means
    index = Index.create("~/index", model="~/run")
    index.add(["~/pictures/class0/0.png"])
    assert Index.open("~/index").search("~/pictures/class0/0.png", 1)[0][0].score > 0.999
    assert not (tmp_path / "~").exists()
    made = {"run", "saved", "exported", "report.html", "index"}
    assert made <= {file.name for file in tmp_path.iterdir()}
