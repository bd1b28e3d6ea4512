import pytest
import torch

from polyanchor.search.masks import column_counts, marked, row_counts


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 8), (3, 48, 48), (2, 1008, 24), (1, 16, 4096), (1, 509, 8)])
def test_positions_and_counts(shape, share):
    """509 rows: a prime number above 255, so that each part is one row."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share
    assert marked(mask).tolist() == [place for place, value in enumerate(mask.view(-1).tolist()) if value]
    assert row_counts(mask).tolist() == mask.sum(dim=2).tolist()
    assert column_counts(mask).tolist() == mask.sum(dim=1).tolist()
