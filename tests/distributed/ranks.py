"""A function on several processes of one machine that talk over gloo."""

import json
import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing

from polyanchor.distributed.comm import hard_exit


def on_ranks(count, function, *arguments):
    """``function(*arguments)`` on each rank of a process group; what each returned, which must fit into JSON."""
    with tempfile.TemporaryDirectory() as folder:
        # spawned, not forked: the test's own process may have threads
        torch.multiprocessing.spawn(_rank, (count, folder, function, arguments), nprocs=count)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(count)]


def _rank(rank, count, folder, function, arguments):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    torch.manual_seed(0)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(function(*arguments)))
    dist.barrier()
    dist.destroy_process_group()
    hard_exit()  # what fails before is torch.multiprocessing's to report
