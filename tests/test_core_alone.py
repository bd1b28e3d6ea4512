"""The core in an environment that has torch, what torch needs, and nothing else."""

import re
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import polyanchor

README = Path(__file__).parent.parent / "README.md"


def needs(package: str, seen: set[str]) -> set[str]:
    """A package and all it requires here, without extras."""
    if package in seen:
        return seen
    seen.add(package)
    for line in distribution(package).requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needs(requirement.name, seen)
    return seen


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A new environment whose site-packages links to torch's files and to polyanchor's sources."""
    home = tmp_path_factory.mktemp("torch_only")
    venv.create(home, symlinks=True)
    site = next((home / "lib").glob("python*")) / "site-packages"
    for package in needs("torch", set()):
        here = distribution(package)
        for top in {Path(str(file)).parts[0] for file in here.files or []} - {"..", "__pycache__"}:
            source, link = Path(str(here.locate_file(top))), site / top
            if source.exists() and not link.exists():
                link.symlink_to(source)
    (site / "polyanchor").symlink_to(Path(polyanchor.__file__).parent)
    return home / "bin" / "python"


def run(python: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)


def test_it_has_torch_only(python):
    for package in ("timm", "lightning", "typer", "pydantic", "sklearn", "torchmetrics"):
        assert run(python, f"import {package}").returncode != 0, package


@pytest.mark.slow
def test_the_ten_lines_of_the_readme_train_a_model(python):
    code = re.search(r"<!-- ten lines -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    code = "import torch; torch.manual_seed(0)\n" + code
    done = run(python, code)
    assert done.returncode == 0, done.stderr
    untrained = run(python, code.replace("range(100)", "range(0)"))
    before, after = (float(re.search(r"map@r +(\S+)", ran.stdout)[1]) for ran in (untrained, done))
    assert after > 0.85
    assert before < 0.65


@pytest.mark.slow
def test_every_core_name_works(python):
    code = (
        "import torch, polyanchor as pa\n"
        "for page in (pa, pa.distributed, pa.losses, pa.samplers, pa.search, pa.stats):\n"
        "    for name in page.__all__: getattr(page, name)\n"
        "x, y = torch.eye(4), torch.tensor([0, 0, 1, 1])\n"
        "assert pa.evaluate_retrieval(x, y, k=1).undefined == 0\n"
    )
    done = run(python, code)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_missing_extra_is_one_line_with_the_command(python):
    done = run(python, "from polyanchor.cli import main; main()")
    assert (done.returncode, done.stderr) == (
        2,
        "polyanchor: typer is not installed; run: pip install 'polyanchor[train]'\n",
    )
    for name in ("RetrievalMetrics", "Embedder", "Index"):
        done = run(python, f"import polyanchor as pa; pa.{name}")
        assert "pip install 'polyanchor[train]'" in done.stderr.splitlines()[-1]
