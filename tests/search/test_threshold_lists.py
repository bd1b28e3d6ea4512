import pytest
import torch

from polyanchor.search.threshold_lists import Lists


def tables(size, side, seed=0):
    """A symmetric table of few distinct scores, padded to whole tiles with -inf, and floors."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 9, (size, size), generator=random).float()
    scores = torch.maximum(scores, scores.T).fill_diagonal_(-torch.inf)
    count = -(-size // side)
    padded = torch.full((count * side, count * side), -torch.inf)
    padded[:size, :size] = scores
    return scores, padded.view(count, side, count, side).transpose(1, 2), torch.randint(2, 9, (size,)).float()


def filled(tiles, floor, side, longest):
    lists = Lists(floor, side, longest)
    for row in range(len(tiles)):
        for column in range(row, len(tiles)):
            lists.add(tiles[row, column].contiguous(), row, column)
        yield lists.take(row)


@pytest.mark.parametrize("size", [5, 16, 41])
def test_lists_hold_what_exceeds_the_floor_in_order_of_the_items(size):
    scores, tiles, floor = tables(size, 8)
    for row, (values, ids, length) in enumerate(filled(tiles, floor, 8, size)):
        for place in range(min(8, size - row * 8)):
            query = row * 8 + place
            want = [n for n in range(size) if scores[query, n] > floor[query]]
            assert length[place] == len(want)
            assert ids[place].tolist() == want + [-1] * (ids.shape[1] - len(want))
            assert values[place, : len(want)].tolist() == scores[query, want].tolist()
            assert values[place, len(want) :].isneginf().all()


def test_a_list_much_longer_than_expected_is_not_built():
    _, tiles, floor = tables(41, 8)
    floor[:] = 7.5
    floor[3] = -1
    for row, (values, ids, length) in enumerate(filled(tiles, floor, 8, 8)):
        assert (length[3] == 0 and (ids[3] == -1).all()) == (row in (0, 5))  # row 43 does not exist
        assert values.shape[1] <= 4 * 8 + 1
        assert length.sum() == (ids >= 0).sum()
