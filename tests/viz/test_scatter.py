"""The plane: principal axes as scikit-learn finds them, points and diamonds where they belong."""

import numpy as np
import torch
from sklearn.decomposition import PCA

from polyanchor.viz.scatter import COLOURS, LEGEND, RIM, SIDE, plane, principal_axes


def test_axes_are_those_of_scikit_learn_but_for_signs():
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([3.0, 1, 5, 1, 1, 1])
    mean, axes, share = principal_axes(rows)
    other = PCA(2).fit(rows.double().numpy())
    assert np.allclose(mean, other.mean_)
    assert np.allclose((axes.T.numpy() * other.components_).sum(axis=1).__abs__(), 1)
    assert np.isclose(share, other.explained_variance_ratio_.sum())


def test_axes_do_not_turn_over_and_draw_nothing():
    rows = torch.randn(50, 6)
    state = torch.get_rng_state()
    _, axes, _ = principal_axes(rows)
    _, again, _ = principal_axes(rows + 0.001)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(axes, again, atol=1e-6)


def where(picture, number):
    """Centre of mass of a colour, in the plane."""
    pixels = np.asarray(picture)[RIM + 5 :, :SIDE].astype(int)
    wanted = np.array(list(bytes.fromhex(COLOURS[number][1:])))
    rows, columns = np.nonzero(np.abs(pixels - wanted).sum(axis=2) < 12)
    return columns.mean(), rows.mean()


def test_each_class_has_its_colour_and_its_place():
    """Two far classes and a third between them: the order along the first axis is kept, distances have one scale."""
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0, 0.1], [0.0, 1.0, 0.1], [1.0, 1.0, 0.1]]), dim=1)
    numbers = torch.tensor([0, 1, 2]).repeat_interleave(5)
    picture = plane(vectors[numbers], numbers, ["a", "b", "c"], None, title="t")
    assert picture.size == (SIDE + LEGEND, SIDE + RIM)
    places = np.array([where(picture, number) for number in range(3)])
    seen = np.linalg.norm(places[:, None] - places[None], axis=2)
    true = torch.cdist(vectors, vectors).numpy()
    assert np.allclose(seen / seen[0, 1], true / true[0, 1], atol=0.02)


def test_proxies_are_diamonds_in_the_colour_of_their_class():
    vectors, numbers = torch.eye(3)[[0, 0, 1]], torch.tensor([0, 0, 1])
    far = torch.tensor([[[0.0, 0.0, 1.0]], [[0.0, 0.1, -1.0]]])
    with_proxies = plane(vectors, numbers, ["a", "b"], far, title="t")
    dark = (np.asarray(with_proxies)[RIM + 5 :, :SIDE] < 60).all(axis=2).sum()
    assert dark > 20  # their outlines
    assert (np.asarray(plane(vectors, numbers, ["a", "b"], None, title="t"))[RIM + 5 :, :SIDE] < 60).all(
        axis=2
    ).sum() == 0


def test_points_that_are_all_the_same():
    assert plane(torch.ones(4, 3), torch.zeros(4, dtype=torch.long), ["a"], None, title="t").size
