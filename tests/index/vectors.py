"""Vectors that the tests of this room share."""

import torch

from polyanchor.index.types import Entries


def unit(count, dim=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=1)


def entries(count, *, start=0, seed=0, dim=16):
    names = [f"p{number}" for number in range(start, start + count)]
    return Entries(unit(count, dim, seed), names, [f"class {number % 3}" for number in range(count)])


def clustered(count, dim=32, seed=0):
    """Rows around 50 centres, as the items of an index are."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(50, dim, generator=torch.Generator().manual_seed(99))
    rows = centres[torch.randint(50, (count,), generator=generator)]
    return torch.nn.functional.normalize(rows + 0.7 * torch.randn(count, dim, generator=generator), dim=1)


def found(hits):
    return [[(hit.id, hit.path, hit.label) for hit in row] for row in hits]
