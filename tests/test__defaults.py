"""The caller's default device and dtype change nothing that the package makes for itself."""

from contextlib import contextmanager

import pytest
import torch

pytest.importorskip("timm", reason="extra: train")

from polyanchor.deploy.embedder import Embedder
from polyanchor.index.index import Index
from polyanchor.models.embedding import create_model
from polyanchor.runs.load import evaluate_run
from polyanchor.training.train import train
from tests.tiny_runs import config


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("default", [lambda: torch.device("meta"), double])
def test_training_embedding_and_searching_under_other_defaults(photos, tmp_path, default):
    image, chosen = sorted(photos.rglob("*.png"))[0], config(photos, "run.epochs=1")
    want = train(chosen, tmp_path / "plain").means
    vector = Embedder.from_run(tmp_path / "plain").embed([image])
    with default():
        assert train(chosen, tmp_path / "other").means == want
        assert evaluate_run(tmp_path / "plain").means == want
        embedder = Embedder.from_run(tmp_path / "plain")
        found = embedder.embed([image])
        embedder.save_pretrained(tmp_path / "saved")
        assert Embedder.from_pretrained(tmp_path / "saved").fingerprint == embedder.fingerprint
        index = Index.create(tmp_path / "index", model=tmp_path / "plain")
        index.add([image])
        [[hit]] = Index.open(tmp_path / "index").search(image, k=1)
        weight = next(create_model("test_resnet", embedding_dim=2).parameters())
    assert torch.equal(found, vector)
    assert hit.score == pytest.approx(1)
    assert (weight.dtype, weight.device.type) == (torch.float32, "cpu")
