"""What the map draws, and where."""

from dataclasses import replace

import torch
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from polyanchor.functional import unit_rows
from polyanchor.report.content import map_section
from polyanchor.report.map import Layer, layers, views
from polyanchor.types import Embeddings


def test_all_is_drawn_if_there_is_room(opened):
    found = layers(opened, points=100)
    assert [(one.kind, len(one.rows), one.total) for one in found] == [
        ("query", 16, 16),
        ("training", 16, 16),
        ("proxy", 4, 4),
    ]
    assert found[2].labels.tolist() == [int(c) for c in opened.trained.classes for _ in range(2)]
    assert torch.allclose(found[2].vectors, unit_rows(opened.proxies.flatten(0, 1)))


def test_few_places_are_shared_by_the_classes(opened):
    found = layers(opened, points=8)
    assert [(one.kind, len(one.rows), one.total) for one in found[:2]] == [("query", 6, 16), ("training", 2, 16)]
    assert found[0].labels.bincount().max() == 3
    gallery = replace(opened, gallery=replace(opened.training, split="gallery"))
    counts = {one.kind: len(one.rows) for one in layers(gallery, points=8)}
    assert counts == {"query": 3, "gallery": 3, "training": 2, "proxy": 4}
    assert {one.kind for one in layers(replace(opened, training=None), points=8)} == {"query", "proxy"}


def layer(vectors):
    numbers = torch.arange(len(vectors))
    return Layer("query", numbers, vectors, None, numbers, len(vectors))


def test_principal_axes_are_those_of_scikit_learn():
    vectors = unit_rows(torch.randn(60, 9))
    (found,) = views([layer(vectors[:40]), layer(vectors[40:])], tsne=False)
    theirs = torch.from_numpy(PCA(2).fit_transform(vectors.double().numpy()))
    assert torch.allclose(found.places.abs(), theirs.abs(), atol=1e-9)
    assert f"{PCA(2).fit(vectors.double().numpy()).explained_variance_ratio_.sum():.0%} of the variance" in found.about


def test_tsne_keeps_neighbours_and_is_the_same_each_time():
    vectors = unit_rows(torch.randn(20, 60)[torch.arange(200) % 20] + 0.8 * torch.randn(200, 60))
    found = views([layer(vectors)], tsne=True)
    assert [one.name for one in found] == ["t-SNE", "principal axes"]
    kept = [trustworthiness(vectors.numpy(), one.places.numpy(), n_neighbors=5) for one in found]
    assert kept[0] > 0.9 > kept[1] + 0.1
    assert torch.equal(found[0].places, views([layer(vectors)], tsne=True)[0].places)


def test_hardly_any_points_have_a_place():
    for count, width in ((1, 4), (2, 1), (3, 1), (6, 1), (7, 2)):
        for one in views([layer(unit_rows(torch.randn(count, width)))], tsne=True):
            assert one.places.shape == (count, 2) and bool(one.places.isfinite().all())


def test_a_class_of_few_has_a_point_among_many(opened):
    """Twenty classes, one of which has a single item: every n-th would pass it by."""
    labels = torch.arange(20 * 40) // 40
    labels = torch.cat([labels[:760], torch.tensor([19])]).flip(0)
    rows = replace(opened.queries, items=range(761), embeddings=Embeddings(torch.randn(761, 3), labels))
    for points, classes in ((20, 20), (100, 20), (7, 7)):
        found = layers(replace(opened, queries=rows, training=None), points=points)
        (chosen,) = [layer for layer in found if layer.kind == "query"]
        assert len(chosen.labels) == points == len(set(chosen.rows.tolist()))
        assert len(chosen.labels.unique()) == classes
        assert torch.equal(labels[chosen.rows], chosen.labels)


def test_the_page_names_classes_without_a_point(opened):
    found = layers(replace(opened, training=None), points=1)[:1]  # without the proxies
    drawn = int(found[0].labels[0])
    said = map_section(found, {drawn: "here", 98: "there", 99: "far"}, ["t-SNE"], "")["about"]
    assert "3 classes" in said and said.endswith("Without a point are there, far.")
    everything = layers(opened, points=100)
    names = {number: str(number) for number in range(2, 6)}  # 0 and 1 validated
    assert "Without a point" not in map_section(everything, names, ["t-SNE"], "")["about"]
