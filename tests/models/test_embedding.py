"""Backbones, pooling, batch norms that stand still, unit length."""

import pytest
import torch
import torch.nn.functional as F

from polyanchor.models.embedding import EmbeddingModel, create_model, restored_model


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("pooling", ["avg", "max", "avg+max"])
def test_any_backbone_and_pooling_gives_unit_vectors(backbone, pooling):
    model = create_model(backbone, embedding_dim=5, pooling=pooling).eval()
    side = 160 if backbone == "test_vit" else 48
    out = model(torch.rand(3, 3, side, side))
    torch.testing.assert_close(out.norm(dim=1), torch.ones(3))
    assert out.shape == (3, 5)


def test_pooling_is_what_its_name_says():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 64, 64)
    model = create_model("test_resnet", embedding_dim=5, pooling="avg+max").eval()
    maps = model.backbone.forward_features(image)
    pooled = (maps.mean((2, 3)) + maps.amax((2, 3))) / 2
    torch.testing.assert_close(model(image), F.normalize(model.head(pooled)))


# what a backbone is to give by itself: features before its classifier; feature maps are pooled by the witness
OWN = ["levit_128s", "pit_ti_224", "pvt_v2_b0", "test_vit"]
MAPS = ["test_resnet", "test_convnext", "test_efficientnet"]


@pytest.mark.parametrize("backbone", OWN + MAPS)
def test_the_default_pooling_suits_any_backbone(backbone):
    timm = pytest.importorskip("timm", reason="extra: train")
    torch.manual_seed(0)
    model = create_model(backbone, embedding_dim=5).eval()
    image = torch.rand(1, 3, *model.backbone.pretrained_cfg["input_size"][1:])
    witness = timm.create_model(backbone, num_classes=0).eval()
    witness.load_state_dict(model.backbone.state_dict())
    maps = witness.forward_features(image)
    want = (maps.mean((2, 3)) + maps.amax((2, 3))) / 2 if backbone in MAPS else witness(image)
    if backbone == "test_convnext":
        want = witness.head.norm(want[:, :, None, None]).flatten(1)
    assert model.pooling == ("avg+max" if backbone in MAPS else "own")
    torch.testing.assert_close(model(image), F.normalize(model.head(want)))
    again = restored_model(backbone, model.state_dict(), pooling=model.pooling, channels_last=False)
    torch.testing.assert_close(again(image), model(image))


def test_a_pooling_that_a_backbone_does_not_have_is_refused_with_what_it_has():
    with pytest.raises(ValueError, match="levit_128s does not support pooling 'avg.max': .*; 'own' is the one it was"):
        create_model("levit_128s", embedding_dim=5, pooling="avg+max")


def test_a_transformer_takes_another_size_with_its_positions_interpolated(tmp_path):
    timm = pytest.importorskip("timm", reason="extra: train")
    torch.manual_seed(0)
    whole = timm.create_model("test_vit", pretrained=False, num_classes=7)  # of 160 pixels, patches of 16
    torch.save({"state_dict": {f"module.{name}": t for name, t in whole.state_dict().items()}}, tmp_path / "w.pth")
    model = create_model("test_vit", embedding_dim=5, weights=str(tmp_path / "w.pth"), image_size=96).eval()
    with torch.no_grad():
        token, grid = whole.pos_embed[:, :1], whole.pos_embed[:, 1:].unflatten(1, (10, 10)).permute(0, 3, 1, 2)
        small = F.interpolate(grid, (6, 6), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
        found = model.backbone.state_dict()
        torch.testing.assert_close(found.pop("pos_embed"), torch.cat([token, small], 1))
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in found.items())
    assert model(torch.rand(2, 3, 96, 96)).shape == (2, 5)
    again = restored_model("test_vit", model.state_dict(), pooling="own", channels_last=False, image_size=96)
    image = torch.rand(1, 3, 96, 96)
    torch.testing.assert_close(again(image), model(image))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "size", "words"),
    [
        ("test_vit", 100, "patches of 16 x 16 pixels do not divide it.*set images.size to 96 or 112"),
        ("mixer_s32_224", 100, "patches of 32 x 32 pixels do not divide it.*set images.size to 96 or 128"),
        ("levit_128s", 100, "set images.size to 96 or 112"),
    ],
)
def test_a_size_that_a_backbone_does_not_take_is_refused_with_those_that_it_does(backbone, size, words):
    with pytest.raises(ValueError, match=rf"{backbone} does not take images of {size} x {size} pixels.*{words}"):
        create_model(backbone, embedding_dim=5, image_size=size)
    named = int(words.rpartition("to ")[2].split(" or ")[0])
    model = create_model(backbone, embedding_dim=5, image_size=named).eval()
    assert model(torch.rand(1, 3, named, named)).shape == (1, 5)


def test_frozen_batch_norms_keep_their_statistics_and_train_their_scale():
    model = create_model("test_resnet", embedding_dim=5, freeze_bn=True).train()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms]
    model(torch.rand(4, 3, 48, 48)).sum().backward()
    assert all(torch.equal(m.running_mean, old) for m, old in zip(norms, before, strict=True))
    assert all(m.weight.grad is not None for m in norms)
    assert model.training
    assert model.backbone.training


def test_a_frozen_backbone_gets_no_gradient_and_no_new_statistics():
    model = create_model("test_resnet", embedding_dim=5)
    model.backbone_frozen = True
    model.train()
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = norm.running_mean.clone()
    model(torch.rand(4, 3, 48, 48)).sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert model.head.weight.grad is not None
    assert torch.equal(norm.running_mean, before)


def test_embeddings_are_float32_under_autocast():
    model = EmbeddingModel(None, features=4, embedding_dim=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(torch.rand(2, 4)).dtype == torch.float32


def test_head_as_in_the_released_proxy_anchor_code():
    torch.manual_seed(1)
    model = EmbeddingModel(None, features=400, embedding_dim=100)
    assert model.head.bias.eq(0).all()
    assert model.head.weight.std().item() == pytest.approx((2 / 100) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet-18"}, "did you mean 'resnet18'"),
        ({"backbone": "test_resnet", "pooling": "mean"}, "pooling must be one of"),
        ({"backbone": "none"}, "features must be at least 1, got 0"),
    ],
)
def test_errors(options, words):
    with pytest.raises(ValueError, match=words):
        create_model(**{"embedding_dim": 4, **options})


def test_a_hub_out_of_reach_says_what_to_do_without(monkeypatch):
    timm = pytest.importorskip("timm", reason="extra: train")

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ConnectionError, match="no route to host.*give model.weights .*a local file"):
        create_model("resnet18", embedding_dim=4, weights="hub")


def test_missing_weights_name_the_file():
    with pytest.raises(FileNotFoundError, match="found no file 'nowhere.pth'"):
        create_model("test_resnet", embedding_dim=4, weights="nowhere.pth")


def test_restored_from_its_weights_alone():
    model = create_model("test_resnet", embedding_dim=6, pooling="max").eval()
    images = torch.rand(2, 3, 48, 48)
    for channels_last in (True, False):
        again = restored_model("test_resnet", model.state_dict(), pooling="max", channels_last=channels_last)
        assert not again.training
        torch.testing.assert_close(again(images), model(images))
    with pytest.raises(ValueError, match="the weights are not those of resnet18"):
        restored_model("resnet18", model.state_dict(), pooling="max", channels_last=True)
    with pytest.raises(ValueError, match=r"must hold head.weight of shape \(D, features\), got \(3,\)"):
        restored_model("test_resnet", {"head.weight": torch.ones(3)}, pooling="max", channels_last=True)
    with pytest.raises(ValueError, match="must hold head.weight .*got none"):
        restored_model("none", {}, pooling="max", channels_last=True)
