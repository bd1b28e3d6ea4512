"""A hub that does not answer: seconds, not minutes; what is in the cache is there without it."""

import http.server
import socket
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="extra: train")

from huggingface_hub import constants, hf_hub_download

from polyanchor.models import weights as hub
from polyanchor.models.embedding import create_model


@pytest.fixture
def silent(monkeypatch):
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hub, "PATIENCE", 0.5)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_answers_with_an_error_is_there(silent):
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)  # 501 to whatever is asked
    threading.Thread(target=server.handle_request, daemon=True).start()
    assert hub.answers(f"http://127.0.0.1:{server.server_port}")
    server.server_close()
    assert not hub.answers(f"http://127.0.0.1:{server.server_port}")
    assert not hub.answers(silent)


def test_pretrained_weights_without_a_network_fail_within_seconds(silent, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", silent)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    begun = time.perf_counter()
    with pytest.raises(
        ConnectionError, match="test_resnet could not be fetched from the hub.*give model.weights .*a lo"
    ):
        create_model("test_resnet", embedding_dim=2, weights="hub")
    assert time.perf_counter() - begun < 10
    assert constants.HF_HUB_OFFLINE is False


def test_what_is_in_the_cache_is_there_without_a_network(silent, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "ENDPOINT", silent)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    place = tmp_path / "models--ann--net"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    (place / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (place / "snapshots" / ("0" * 40) / "w.txt").write_text("kept")
    with hub.at_once():
        found = hf_hub_download("ann/net", "w.txt", cache_dir=tmp_path)
    assert Path(found).read_text() == "kept"
