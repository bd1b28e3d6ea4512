"""Batch samplers: which items make a batch, decided by (seed, epoch) alone."""

from polyanchor.datasets.samplers import ClassBalancedBatches as ClassBalancedBatches
from polyanchor.datasets.samplers import EpochBatches as EpochBatches
from polyanchor.datasets.samplers import ShuffledBatches as ShuffledBatches

__all__ = ["ClassBalancedBatches", "EpochBatches", "ShuffledBatches"]
