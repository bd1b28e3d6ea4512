import subprocess
import sys

import pytest
import torch

from polyanchor._errors import InputError
from polyanchor.config.loading import load_config
from polyanchor.datasets.items import Items
from polyanchor.training import trainer as memory
from polyanchor.training.trainer import require_room

CODE = """
import resource, torch
from polyanchor.training.trainer import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
torch.set_num_threads(1)
for _ in range(6):
    torch.ones(2**24)  # 64 MiB, above the 32 MiB that glibc may come to keep by itself; freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    done = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_not_asked_for_again():
    # Not none: now and then a small object lands inside a freed block, and the next request grows the heap once.
    assert page_faults(True) < 0.5 * page_faults(False)


VECTORS = Items(torch.rand(40, 5), torch.arange(40) // 4)


def refused(*settings):
    with pytest.raises(InputError, match=r"GiB, and this machine has .* GiB; lower ") as raised:
        require_room(load_config(settings=list(settings)), VECTORS)
    return str(raised.value)


def test_what_cannot_fit_is_said_with_its_size_and_its_key():
    """10 classes x 10^6 centres x 10^6 columns x (value, gradient, two moments) x 4 bytes."""
    said = refused("loss.proxies_per_class=1000000", "model.embedding_dim=1000000")
    assert said.startswith(f"the proxies in training would take {10 * 10**12 * 16 / 2**30:,.1f} GiB")
    assert said.endswith("loss.proxies_per_class or model.embedding_dim")
    assert "batches.samples_per_class" in refused("batches.samples_per_class=1000000", "model.embedding_dim=1000000")


def test_the_bound_is_the_memory_of_the_machine(monkeypatch):
    config = load_config(settings=["loss.proxies_per_class=1000", "batches.samples_per_class=1"])
    size = 10 * 1000 * config.model.embedding_dim * 16
    monkeypatch.setattr(memory, "_physical_memory", lambda: size)
    require_room(config, VECTORS)
    monkeypatch.setattr(memory, "_physical_memory", lambda: size - 1)
    with pytest.raises(InputError, match="the proxies in training"):
        require_room(config, VECTORS)
