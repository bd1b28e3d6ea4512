"""Losses of several processes that share a batch, or the classes."""

from typing import TYPE_CHECKING

from polyanchor._optional import lazy_names

if TYPE_CHECKING:
    from polyanchor.distributed.data_parallel import DataParallelLoss as DataParallelLoss
    from polyanchor.distributed.sharded_checkpoint import load_sharded as load_sharded
    from polyanchor.distributed.sharded_checkpoint import save_sharded as save_sharded
    from polyanchor.distributed.sharded_loss import ShardedMultiProxyAnchorLoss as ShardedMultiProxyAnchorLoss
    from polyanchor.distributed.sharded_loss import draw_sample as draw_sample
    from polyanchor.distributed.sharded_loss import step_samples as step_samples

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "data_parallel": ["DataParallelLoss"],
        "sharded_checkpoint": ["load_sharded", "save_sharded"],
        "sharded_loss": ["ShardedMultiProxyAnchorLoss", "draw_sample", "step_samples"],
    },
)
