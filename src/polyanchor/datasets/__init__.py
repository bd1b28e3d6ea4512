"""Data: from image files and tables to labelled items, official splits, batches and tensors."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.datasets.items import Items as Items
    from polyanchor.datasets.items import Split as Split
    from polyanchor.datasets.loading import Batch as Batch
    from polyanchor.datasets.loading import ItemDataset as ItemDataset
    from polyanchor.datasets.loading import collate as collate
    from polyanchor.datasets.samplers import ClassBalancedBatches as ClassBalancedBatches
    from polyanchor.datasets.samplers import EpochBatches as EpochBatches
    from polyanchor.datasets.samplers import ShuffledBatches as ShuffledBatches
    from polyanchor.datasets.sources import open_items as open_items
    from polyanchor.datasets.sources import open_source as open_source
    from polyanchor.datasets.splits import hold_out_classes as hold_out_classes
    from polyanchor.datasets.splits import split_by_class as split_by_class
    from polyanchor.datasets.transforms import test_transform as test_transform
    from polyanchor.datasets.transforms import train_transform as train_transform

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "items": ["Items", "Split"],
        "loading": ["Batch", "ItemDataset", "collate"],
        "samplers": ["ClassBalancedBatches", "EpochBatches", "ShuffledBatches"],
        "sources": ["open_items", "open_source"],
        "splits": ["hold_out_classes", "split_by_class"],
        "transforms": ["test_transform", "train_transform"],
    },
)
