"""Necks by their formulas, and principal components against scikit-learn's."""

import pytest
import torch

from polyanchor.models.embedding import EmbeddingModel, restored_model
from polyanchor.models.head import fit_neck, make_neck, pca


def features(count=40, width=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, width, generator=generator) @ torch.randn(width, width, generator=generator) + 5


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_principal_components_are_scikit_learns(dim):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="extra: dev")
    vectors, new = features(), features(7)
    witness = decomposition.PCA(dim, svd_solver="full").fit(vectors.double().numpy())
    want = torch.from_numpy(witness.transform(new.double().numpy())).float()
    got = pca(vectors, dim)(new)
    signs = (got * want).sum(0).sign()  # a direction has no sign of its own
    torch.testing.assert_close(got * signs, want, rtol=1e-4, atol=1e-4)


def test_each_direction_has_its_largest_component_positive():
    rows = pca(features(), 4).weight
    assert bool((rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all())


def test_fewer_vectors_than_columns_leave_directions_that_are_orthonormal():
    layer = pca(features(3), 5)
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(5), atol=1e-5, rtol=0)
    assert not layer.weight.requires_grad and not layer.bias.requires_grad
    torch.testing.assert_close(pca(features(3) + 1e-9, 5).weight, layer.weight, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("shape", "dim"), [((4, 3), 4), ((4, 3), 0), ((0, 3), 1), ((3,), 1)])
def test_what_cannot_be_reduced(shape, dim):
    with pytest.raises(ValueError, match="vectors must be|dim must lie between 1 and the 3 columns"):
        pca(torch.ones(shape), dim)


def test_necks_by_hand():
    seen, new = features(), features(5)
    necks = {name: make_neck(name, 6) for name in ("none", "center", "batchnorm", "layernorm")}
    for neck in necks.values():
        fit_neck(neck, seen)
        neck.eval()
    assert torch.equal(necks["none"](new), new)
    torch.testing.assert_close(necks["center"](new), new - seen.mean(0))
    torch.testing.assert_close(necks["batchnorm"](new), (new - seen.mean(0)) / (seen.var(0) + 1e-5).sqrt())
    deviation = (new.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(necks["layernorm"](new), (new - new.mean(1, keepdim=True)) / deviation)
    assert [name for name, neck in necks.items() if any(p.requires_grad for p in neck.parameters())] == ["batchnorm"]
    assert not necks["batchnorm"].bias.requires_grad


@pytest.mark.parametrize("neck", ["none", "center", "batchnorm", "layernorm"])
@pytest.mark.parametrize("reduced", [False, True])
def test_a_model_is_restored_with_neck_head_and_reduction(neck, reduced):
    seen, new = features(), features(5)
    model = EmbeddingModel(None, features=6, embedding_dim=4, neck=neck)
    fit_neck(model.neck, seen)
    assert (model.features, model.train_dim, model.embedding_dim) == (6, 4, 4)
    trained = model.eval()(new)
    if reduced:
        model.reduction = pca(model(seen), 2)
        assert (model.train_dim, model.embedding_dim) == (4, 2)
        torch.testing.assert_close(model(new), torch.nn.functional.normalize(model.reduction(trained)))
        torch.testing.assert_close(model.reduced(trained[None].expand(3, 5, 4))[2], model(new))
    again = restored_model("none", model.state_dict(), pooling="auto", channels_last=False, neck=neck)
    assert torch.equal(again(new), model(new))
    with torch.autocast("cpu"):
        torch.testing.assert_close(again.reduced(trained), model.reduced(trained))


def test_without_a_head_the_features_are_trained_and_none_is_never_in_the_weights():
    model = EmbeddingModel(torch.nn.Linear(3, 6), features=6, embedding_dim=4, neck="center", head="none")
    assert (model.train_dim, model.embedding_dim) == (6, 6)
    assert sorted(model.state_dict()) == ["backbone.bias", "backbone.weight", "neck.mean"]
