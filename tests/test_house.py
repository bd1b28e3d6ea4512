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
    "_check.py": "its wording is tested where it is said: functional/test_multi_proxy_anchor.py",
    "_errors.py": "cli/test_app.py",
    "_extras.py": "test_core_alone.py",
    "kernels/triton_push.py": "kernels/test_gpu.py",
    "distributed/exchange.py": "distributed/test_sharded_loss.py, whose every number went through it",
    "distributed/ranks.py": "training/test_joining.py",
    "distributed/shard_sweep.py": "distributed/test_sharded_loss.py",
    "experiments/stability_figure.py": "experiments/test_stability.py",
    "analysis/figures.py": "analysis/test_proxy_figures.py and its neighbours",
    "cli/analyze.py": "cli/test_compare.py and its neighbours",
    "cli/analyze_measures.py": "cli/test_compare.py",
    "training/trained.py": "cli/test_analyze_proxies.py",
    "training/config.py": "training/test_config_file.py",
    "training/fit.py": "training/test_train.py",
    "training/loss_config.py": "training/test_config_file.py and losses/test_pml.py",
    "training/section.py": "training/test_config_file.py",
    "training/trainer.py": "training/test_train.py",
    "training/setup.py": "training/test_train.py",
    "training/learner.py": "training/test_train.py",
    "training/callbacks.py": "training/test_train.py",
    "training/demo.py": "cli/test_demo.py",
    "explore/explore.py": "cli/test_explore.py",
    "explore/thumbnails.py": "explore/test_parquet.py",
    "report/content.py": "report/test_report.py",
    "report/facts.py": "report/test_report.py",
    "cli/_index.py": "cli/test_index.py and its own example",
    "cli/search.py": "cli/test_index.py",
    "index/build.py": "cli/test_index.py",
    "index/query.py": "cli/test_index.py",
    "cli/_output.py": "cli/test_train.py",
    "cli/_settings.py": "cli/test_train.py and its own example",
    "cli/_verdict.py": "cli/test_compare.py",
    "deploy/onnx_file.py": "deploy/test_export.py",
    "deploy/torchscript.py": "deploy/test_export.py",
    "experiments/folder.py": "experiments/test_comparison.py",
    "experiments/table.py": "experiments/test_verdict.py",
    "experiments/tuning.py": "experiments/test_comparison.py",
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


def test_help_does_not_import_torch():
    code = "import sys; from polyanchor.cli.app import run; assert run(['train', '--help']) == 0"
    assert not modules_after(code) & {"torch", "lightning", "timm", "numpy", "torchvision"}


def test_importing_the_package_imports_nothing_else():
    assert not modules_after("import polyanchor") & {"torch", "numpy", "typer"}


def test_the_public_names_are_there():
    for name in polyanchor.__all__:
        assert getattr(polyanchor, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'MultiProxyAncor'"):
        _ = polyanchor.MultiProxyAncor
