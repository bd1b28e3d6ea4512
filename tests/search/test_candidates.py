import pytest
import torch

from polyanchor.search.threshold_lists import candidates, least_of_groups


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_both_ways_it_finds_what_looking_at_every_score_finds(subtests, spread):
    for side in (8, 24, 48):
        with subtests.test(side=side):
            random = torch.Generator().manual_seed(side)
            tile = torch.randint(-9, 10, (side, side), generator=random).float()  # many scores equal a floor
            tile[torch.rand(side, side, generator=random) < 0.1] = -torch.inf
            tile[3] = -torch.inf
            rows, columns = (6 + spread * torch.randint(-9, 6, (side,), generator=random) for _ in "ab")
            rows[1], columns[0] = torch.inf, torch.inf
            found = candidates(tile, least_of_groups(rows), columns)
            for floor, of_candidates in (
                (rows[:, None], rows.view(4, -1).index_select(1, found.line)),
                (columns, columns[found.column]),
            ):
                at = found.above(of_candidates)
                want = (tile > floor).nonzero()  # in order of rows, then of columns
                assert torch.stack([found.rows(at), found.columns(at)], dim=1).equal(want)
                assert found.score(at).equal(tile[tile > floor])


def test_nothing_above_any_floor():
    floor = torch.ones(8)
    found = candidates(torch.zeros(8, 8), least_of_groups(floor), floor)
    at = found.above(floor.view(4, -1).index_select(1, found.line))
    assert len(found.rows(at)) == len(found.columns(at)) == len(found.score(at)) == 0


def test_groups_without_a_score_above_a_floor_are_not_looked_into():
    tile, floor = torch.zeros(48, 48), torch.full((48,), 0.5)
    tile[7, 5] = 1
    assert candidates(tile, least_of_groups(floor), floor).scores.shape == (4, 1)
