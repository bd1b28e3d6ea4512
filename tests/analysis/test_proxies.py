"""Local centres of known geometry, and every number again by loops."""

import itertools
import math

import pytest
import torch

from polyanchor.analysis.proxies import effective_number, merged_groups, study_proxies
from polyanchor.types import Embeddings


def clustered(per_cluster=10, noise=0.05):
    """Classes 4 and 9, three clusters each around different axes of 6; proxies on the axes; sub-class = cluster."""
    axes = torch.eye(6).view(2, 3, 6)
    centre = torch.arange(6).repeat_interleave(per_cluster)
    generator = torch.Generator().manual_seed(2)
    vectors = axes.view(6, 6)[centre] + noise * torch.randn(len(centre), 6, generator=generator)
    labels = torch.tensor([4, 9])[centre // 3]
    return Embeddings(vectors, labels, class_names={4: "four"}, sublabels=centre), axes, torch.tensor([4, 9])


def test_three_clusters_with_a_proxy_on_each():
    study = study_proxies(*clustered())
    assert [one.name for one in study.classes] == ["four", "9"]
    for one in study.classes:
        assert one.counts == (10, 10, 10) and one.in_use == 3
        assert one.effective_hard == pytest.approx(3)
        assert one.effective_soft == pytest.approx(3, abs=1e-3)
        assert one.merged == () and one.distinct == 3 and one.effective_distinct == one.effective_hard
        assert one.spread == pytest.approx(90)
        assert (one.agreement.sub_classes, one.agreement.ami, one.agreement.purity) == (3, pytest.approx(1), 1)
        assert one.agreement.kmeans_purity == 1
    assert study.centre.tolist() == [k for _ in range(2) for k in range(3) for _ in range(10)]
    assert study.means["ami"] == pytest.approx(1) and study.means["spread"] == pytest.approx(90)


def test_two_proxies_that_all_but_coincide_merge_and_a_third_out_of_the_way_is_not_in_use():
    embeddings, proxies, classes = clustered()
    proxies = proxies.clone()
    proxies[0] = torch.stack([proxies[0, 0], 3 * proxies[0, 0] + 0.3 * proxies[0, 1], -proxies[0, 0]])
    one, other = study_proxies(embeddings, proxies, classes).classes
    assert one.merged == ((0, 1),) and one.distinct == 2
    both = (one.counts[0] + one.counts[1]) / 30
    assert one.effective_distinct == pytest.approx(both**-both * (1 - both) ** (both - 1))
    assert one.effective_distinct < one.effective_hard
    assert one.spread == pytest.approx(120, abs=0.1)
    assert min(one.counts[:2]) > 0 and other.merged == ()


def test_one_centre_that_takes_all_is_an_effective_number_of_one():
    embeddings, proxies, classes = clustered()
    vectors = proxies[:, 1].repeat_interleave(30, dim=0)
    one = study_proxies(Embeddings(vectors, embeddings.labels), proxies, classes).classes[0]
    assert one.counts == (0, 30, 0) and one.in_use == 1
    assert one.effective_hard == 1 and one.effective_soft == pytest.approx(1, abs=2e-3)
    assert one.agreement is None


def test_every_number_by_loops():
    generator = torch.Generator().manual_seed(7)
    vectors, proxies = torch.randn(40, 3, generator=generator), torch.randn(3, 4, 3, generator=generator)
    classes = torch.tensor([2, 5, 11])
    labels = classes[torch.randint(3, (40,), generator=generator)]
    study = study_proxies(Embeddings(vectors, labels), proxies, classes, gamma=0.3, merged_above=0.5)

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    for number, one in enumerate(study.classes):
        rows = [row for row in range(40) if labels[row] == one.class_id]
        usage, counts = [0.0] * 4, [0] * 4
        for row in rows:
            s = [cosine(vectors[row].tolist(), p) for p in proxies[number].tolist()]
            counts[s.index(max(s))] += 1
            assert study.centre[row] == s.index(max(s))
            assert study.similarity[row].item() == pytest.approx(max(s), abs=1e-5)
            for k in range(4):
                usage[k] += math.exp(s[k] / 0.3) / sum(math.exp(z / 0.3) for z in s) / len(rows)
        assert one.counts == tuple(counts)
        assert one.usage == pytest.approx(usage, abs=1e-5)
        assert one.effective_soft == pytest.approx(math.exp(-sum(u * math.log(u) for u in usage)), rel=1e-4)
        shares = [count / len(rows) for count in counts if count]
        assert one.effective_hard == pytest.approx(math.exp(-sum(u * math.log(u) for u in shares)))
        pairs = [cosine(p, q) for p, q in itertools.combinations(proxies[number].tolist(), 2)]
        assert one.spread == pytest.approx(sum(math.degrees(math.acos(c)) for c in pairs) / 6, abs=1e-2)
    assert study.means["effective_hard"] == pytest.approx(sum(one.effective_hard for one in study.classes) / 3)


def test_groups_are_chains_and_the_threshold_itself_does_not_merge():
    cosines = torch.eye(6)
    for a, b in ((5, 2), (2, 4), (0, 3), (3, 1)):
        cosines[a, b] = cosines[b, a] = 0.9
    assert merged_groups(cosines, 0.8) == ((0, 1, 3), (2, 4, 5))
    assert merged_groups(cosines, 0.9) == tuple((k,) for k in range(6))


def test_effective_number_of_equal_and_of_unequal_shares():
    torch.testing.assert_close(effective_number(torch.full((7,), 1 / 7)), torch.tensor(7.0))
    assert 1 < effective_number(torch.tensor([0.9, 0.1])) < 2


def test_one_proxy_per_class_has_no_angle():
    embeddings, proxies, classes = clustered()
    one = study_proxies(embeddings, proxies[:, :1], classes).classes[0]
    assert (one.effective_soft, one.effective_hard, one.distinct, one.in_use) == (1, 1, 1, 1)
    assert math.isnan(one.spread)


def test_classes_without_items_are_left_out_and_length_does_not_matter():
    embeddings, proxies, classes = clustered()
    few = Embeddings(5 * embeddings.vectors[30:], embeddings.labels[30:])
    study = study_proxies(few, proxies, classes)
    assert [one.class_id for one in study.classes] == [9]
    assert study.classes[0].usage == pytest.approx(study_proxies(*clustered()).classes[1].usage)


def test_bad_input():
    embeddings, proxies, classes = clustered()
    with pytest.raises(ValueError, match=r"got items of the classes \[4\], which have none"):
        study_proxies(embeddings, proxies[1:], classes[1:])
    with pytest.raises(ValueError, match="gamma must be a finite number above 0, got 0"):
        study_proxies(embeddings, proxies, classes, gamma=0)
    with pytest.raises(ValueError, match="as many columns as the proxies, 5, got 6"):
        study_proxies(embeddings, proxies[..., :5], classes)
