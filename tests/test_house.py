"""The rules of the house that a machine can check."""

import subprocess
import sys
from pathlib import Path

import pytest

import polyanchor

SOURCE = Path(polyanchor.__file__).parent
TESTS = Path(__file__).parent
ROOT = TESTS.parent

# Modules whose test has another name, with the reason.
ELSEWHERE = {
    "__main__.py": "cli/test_app.py",
    "_errors.py": "cli/test_app.py",
    "samplers.py": "test_pages.py and datasets/test_samplers.py",
    "_optional.py": "test_core_alone.py",
    "_kernels/triton.py": "_kernels/test_gpu.py",
    "losses/base.py": "distributed/test_gradients.py and training/test_history.py",
    "distributed/comm.py": "training/test_joining.py and distributed/test_sharded_loss.py",
    "config/schema.py": "config/test_loading.py",
    "config/builders.py": "training/test_train.py",
    "viz/figures.py": "analysis/test_proxy_figures.py and its neighbours",
    "training/trainer.py": "training/test_train.py",
    "training/callbacks.py": "training/test_train.py",
    "report/content.py": "report/test_write.py",
    "compare/plan.py": "compare/test_run.py",
    "compare/tables.py": "compare/test_significance.py",
    "cli/_common.py": "cli/test_train.py and its own example",
    "cli/_flags.py": "cli/test_app.py",
    "cli/analyze.py": "cli/test_analyze_gradients.py and cli/test_compare.py",
}


def test_the_layers_hold():
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_has_its_test():
    modules = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py") if path.name != "__init__.py"]
    missing = [
        str(module)
        for module in modules
        if str(module) not in ELSEWHERE and not (TESTS / module.with_name(f"test_{module.name}")).is_file()
    ]
    assert missing == []
    assert [name for name in ELSEWHERE if not (SOURCE / name).is_file()] == []


def modules_after(code: str) -> set[str]:
    listing = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listing.stdout.split())


def test_help_and_configuration_do_not_import_torch():
    code = """
import contextlib, io, typer
from polyanchor.cli.app import app, run

def commands(command, words=()):
    yield words
    for name, part in getattr(command, "commands", {}).items():
        if not part.hidden:
            yield from commands(part, (*words, name))

with contextlib.redirect_stdout(io.StringIO()):
    for words in commands(typer.main.get_command(app)):
        assert run([*words, "--help"]) == 0, words
    assert run(["config", "photos/", "--loss", "arcface", "--lr", "1"]) == 0
assert run(["train", "--optim.lrr", "1"]) == 2
"""
    heavy = {"torch", "lightning", "timm", "numpy", "torchvision", "PIL", "sklearn", "rich"}
    assert not modules_after(code) & heavy


def test_importing_the_package_imports_nothing_else():
    assert not modules_after("import polyanchor") & {"torch", "numpy", "typer"}


def test_the_public_names_are_there():
    for name in polyanchor.__all__:
        assert getattr(polyanchor, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'MultiProxyAncor'"):
        _ = polyanchor.MultiProxyAncor
