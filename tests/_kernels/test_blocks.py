"""Which block holds which class and which pair; the scores' memory; and lengths."""

import torch

from polyanchor._kernels import blocks
from polyanchor._kernels.blocks import Part, Scores, cut, inverse_lengths
from polyanchor.functional import unit_rows


def part(labels: list[int], classes: int) -> Part:
    return Part(unit_rows(torch.randn(len(labels), 3)), torch.randn(classes, 2, 3), torch.tensor(labels))


def test_every_class_once_and_every_pair_where_its_class_is(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SCORES", 0)
    monkeypatch.setattr(blocks, "FEWEST_PROXIES", 6)
    held = part([6, -1, 0, 6, 7, 2, 3], 7)  # -1 and 7 are classes held elsewhere
    found, inverse = cut(held)
    assert [(block.span.start, len(block.proxies)) for block in found] == [(0, 3), (3, 3), (6, 1)]
    for block in found:
        here = range(*block.span.indices(7))
        want = {(row, int(label)) for row, label in enumerate(held.labels) if label in here}
        assert {(int(r), int(c) + here[0]) for r, c in zip(block.rows, block.classes, strict=True)} == want
        assert block.flat.tolist() == (block.classes * 7 + block.rows).tolist()
        block.inverse.fill_(here[0])
    assert inverse[:, 0].tolist() == [0, 0, 0, 3, 3, 3, 6]


def test_scores_are_scaled_cosines_and_wait_in_the_gradients_memory(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SCORES", 0)
    monkeypatch.setattr(blocks, "FEWEST_PROXIES", 4)
    held = part([0, 1], 5)  # 2 rows < 3 columns
    found, _ = cut(held)
    gradient = torch.zeros_like(held.proxies)
    scores = Scores(found, held.units, unit=7.0)
    scores.keep(gradient, 0)
    first = [scores.of(block) for block in found]
    torch.testing.assert_close(torch.cat(first), 7 * unit_rows(held.proxies) @ held.units.T)
    held.proxies.zero_()  # a second look does not come here
    for block, old in zip(found, first, strict=True):
        assert scores.of(block).data_ptr() == old.data_ptr() == gradient[block.span].data_ptr()
        assert old.abs().max() > 0


def test_a_block_without_a_home_is_computed_again_when_another_was_in_the_buffer(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_SCORES", 0)
    monkeypatch.setattr(blocks, "FEWEST_PROXIES", 4)
    held = part([0, 1], 4)
    (one, two), _ = cut(held)
    scores = Scores([one, two], held.units, unit=1.0)
    want = scores.of(one).clone()
    assert not torch.equal(scores.of(two), want)
    assert torch.equal(scores.of(one), want)


def test_inverse_lengths_against_float64():
    vectors = torch.randn(4, 6) * torch.tensor([1.0, 1e-25, 1e25, 0.0])[:, None]
    got = inverse_lengths(vectors).double() * vectors.double().norm(dim=1)
    torch.testing.assert_close(got, torch.tensor([1.0, 1.0, 1.0, 0.0]).double(), rtol=1e-6, atol=0)
