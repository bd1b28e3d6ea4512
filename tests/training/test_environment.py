import subprocess
from pathlib import Path

import torch

import polyanchor
from polyanchor.training.summary import environment


def test_versions_machine_and_commit():
    found = environment()
    assert found["torch"] == torch.__version__
    assert f"{torch.get_num_threads()} threads" in found["machine"]
    home = Path(polyanchor.__file__).parent
    head = subprocess.run(["git", "-C", home, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode == 0:
        assert head.stdout.startswith(found["commit"].rstrip("+"))
