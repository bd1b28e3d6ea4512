"""Purity by hand; agreement that is perfect, at chance, and undefined."""

from collections import Counter

import pytest
import torch

from polyanchor.analysis.proxies import agreement, purity


def test_purity_by_hand():
    generator = torch.Generator().manual_seed(0)
    groups, subs = (torch.randint(4, (50,), generator=generator) for _ in range(2))
    most = 0
    for group in range(4):
        inside = [int(sub) for g, sub in zip(groups, subs, strict=True) if g == group]
        most += Counter(inside).most_common(1)[0][1]
    assert purity(groups, 1000 + subs) == most / 50


def blobs(noise):
    """120 unit vectors around three axes of four, with the number of the axis."""
    centre = torch.arange(3).repeat(40)
    vectors = torch.eye(4)[centre] + noise * torch.randn(120, 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.normalize(vectors, dim=1), centre


def test_centres_that_are_the_sub_classes():
    vectors, centre = blobs(0.1)
    found = agreement(vectors, (centre + 1) % 3, centre + 70, 3, seed=0)
    assert (found.ami, found.purity, found.kmeans_ami, found.kmeans_purity) == pytest.approx((1, 1, 1, 1))
    assert 1 / 3 < found.random_purity < 0.5


def test_centres_that_have_nothing_to_do_with_the_sub_classes():
    vectors, sub = blobs(0.1)
    centre = torch.arange(120) // 40  # each holds a third of every sub-class
    found = agreement(vectors, centre, sub, 3, seed=0)
    assert abs(found.ami) < 0.05 and found.purity < 0.4
    assert found.kmeans_purity == 1  # the vectors would have told
    assert found.random_purity == pytest.approx(found.purity, abs=0.1)


def test_the_chance_keeps_the_sizes_of_the_groups():
    vectors, sub = blobs(0.1)
    found = agreement(vectors, torch.zeros(120, dtype=torch.int64), sub, 3, seed=0)
    assert found.random_purity == pytest.approx(1 / 3)


def test_the_same_seed_gives_the_same_numbers():
    vectors, sub = blobs(0.8)
    centre = vectors.argmax(dim=1)
    assert agreement(vectors, centre, sub, 4, seed=3) == agreement(vectors, centre, sub, 4, seed=3)


def test_a_single_sub_class_cannot_be_divided_and_few_items_get_few_clusters():
    vectors, _ = blobs(0.1)
    nought = torch.zeros(120, dtype=torch.int64)
    assert agreement(vectors, nought, nought, 3, seed=0) is None
    found = agreement(vectors[:2], torch.tensor([0, 9]), torch.tensor([5, 6]), 10, seed=0)
    assert found.kmeans_purity == found.purity == 1
