import pytest
import torch

from polyanchor.search.scores import marked


@pytest.mark.parametrize("shape", [(1, 1, 8), (3, 48, 48), (2, 1008, 24), (1, 16, 4096)])
def test_positions(subtests, shape):
    for share in (0.0, 0.01, 0.3, 1.0):
        with subtests.test(share=share):
            mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share
            assert marked(mask).tolist() == [place for place, value in enumerate(mask.view(-1).tolist()) if value]
