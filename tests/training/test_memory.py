import subprocess
import sys

import pytest

CODE = """
import resource, torch
from polyanchor.training.memory import keep_freed_memory
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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_not_asked_for_again():
    # Not none: now and then a small object lands inside a freed block, and the next request grows the heap once.
    assert page_faults(True) < 0.5 * page_faults(False)
