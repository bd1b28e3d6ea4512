"""BN-Inception: what the network sees, what comes out, where its weights come from."""

import pytest
import torch

pretrainedmodels = pytest.importorskip("pretrainedmodels.models.bninception", reason="extra: bn-inception")

from polyanchor.datasets.transforms import test_transform as seen  # noqa: E402  (after the skip)
from polyanchor.models.embedding import create_model  # noqa: E402  (likewise)


def test_it_sees_what_the_published_settings_say():
    said = pretrainedmodels.pretrained_settings["bninception"]["imagenet"]
    assert (said["input_space"], said["input_range"], said["std"]) == ("BGR", [0, 255], [1, 1, 1])
    from PIL import Image

    model = create_model("bn_inception", embedding_dim=4, pooling="avg").eval()
    image = seen(size=32, resize=32, mean=model.statistics.mean, std=model.statistics.std)(
        Image.new("RGB", (32, 32), (10, 20, 30))
    )
    received = []
    model.backbone.network.features = lambda images: received.append(images) or torch.zeros(1, 1024, 1, 1)
    model(image[None])
    blue, green, red = received[0][0, :, 0, 0].tolist()
    mean = said["mean"]  # of blue, green, red
    assert (blue, green, red) == pytest.approx((30 - mean[0], 20 - mean[1], 10 - mean[2]), abs=1e-3)


def test_pooling_is_what_its_name_says():
    model = create_model("bn_inception", embedding_dim=4, pooling="avg+max").eval()
    images = torch.rand(2, 3, 64, 64)
    maps = model.backbone.network.features(images.flip(1))
    pooled = (maps.mean((2, 3)) + maps.amax((2, 3))) / 2
    torch.testing.assert_close(model.backbone(images), pooled)
    assert model(images).shape == (2, 4)


def test_weights_from_a_file_and_from_the_hub_are_the_same(tmp_path, monkeypatch):
    state = pretrainedmodels.BNInception(num_classes=1000).state_dict()
    torch.save(state, tmp_path / "bn_inception.pth")
    monkeypatch.setattr("polyanchor.models.bn_inception.answers", lambda url: True)
    asked = []
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **kw: asked.append((url, kw)) or state)
    one = create_model("bn_inception", embedding_dim=4, weights=str(tmp_path / "bn_inception.pth"))
    two = create_model("bn_inception", embedding_dim=4, weights="hub")
    for model in (one, two):
        assert torch.equal(model.backbone.network.conv1_7x7_s2.weight, state["conv1_7x7_s2.weight"])
    assert asked[0][0].endswith("bn_inception-52deb4733.pth") and asked[0][1]["check_hash"]


def test_a_hub_out_of_reach_says_what_to_do_without(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("polyanchor.models.bn_inception.answers", lambda url: True)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    with pytest.raises(ConnectionError, match="no route to host.*give model.weights .*a local file"):
        create_model("bn_inception", embedding_dim=4, weights="hub")
