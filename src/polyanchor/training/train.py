"""The main job: from a configuration to a trained model and its measures on classes that never trained."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from polyanchor._defaults import own_defaults
from polyanchor._files import user_path
from polyanchor.distributed.ranks import Ranks
from polyanchor.training.config import Config
from polyanchor.training.device import device_of
from polyanchor.training.environment import environment
from polyanchor.training.failures import explained, late_deaths_explained
from polyanchor.training.fit import fit, measuring
from polyanchor.training.joining import is_rank, joined, processes
from polyanchor.training.launch import on_devices
from polyanchor.training.loggers import closing, log_measures
from polyanchor.training.run_folder import RunFolder, as_json, write_json
from polyanchor.training.setup import make_transforms
from polyanchor.training.sharded_proxies import whole
from polyanchor.training.stopping import StopRequest
from polyanchor.training.summary import Announce
from polyanchor.training.trainer import quiet
from polyanchor.types import RetrievalReport


@own_defaults()
def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    announce: Announce = lambda line: None,
    stop: StopRequest | None = None,
) -> RetrievalReport:
    """Train, choose the best epoch on held-out training classes, measure on the test classes, write it all down.

    Args:
        config: of the run; of a resumed one, what it was begun with.
        out: the run's folder, see :mod:`polyanchor.training.run_folder`; new, unless ``resume``.
        resume: go on from ``checkpoints/last.ckpt``, as if the run had not been interrupted; exactly so on a CPU.
        announce: receives lines about what is being done.
        stop: ends the run after the step under way, with a checkpoint, when a stop is requested; by default
            Ctrl-C during training is such a request.

    Returns:
        The measures on the test classes.

    Raises:
        Interrupted: a stop was requested; the checkpoint is written.
        JobFailedError: the disk is full, a worker process was killed, memory ran out; says how to go on.
        DivergedError: the loss or a gradient is NaN or infinite; names the batch.
        ValueError: the configuration, the data or the checkpoint is not usable, or another process works in the
            folder; says why.
    """
    folder = user_path(out)
    stop = stop or StopRequest(announce)
    if processes(config) == 1 or is_rank():
        return _train(config, folder, resume=resume, announce=announce, stop=stop)
    device_of(config)  # refuses what there is not, before processes are started
    work = {"config": config, "out": folder, "resume": resume}
    report: RetrievalReport = on_devices(config, _train, work, announce=announce, stop=stop, folder=folder)
    return report


def _train(config: Config, out: Path, *, resume: bool, announce: Announce, stop: StopRequest) -> RetrievalReport:
    """In each process of the run."""
    with late_deaths_explained(out), joined(config) as ranks, ExitStack() as holding:
        return _work(config, RunFolder(out), ranks, holding, resume=resume, announce=announce, stop=stop)


def _work(
    config: Config,
    folder: RunFolder,
    ranks: Ranks,
    holding: ExitStack,
    *,
    resume: bool,
    announce: Announce,
    stop: StopRequest,
) -> RetrievalReport:
    begun = time.perf_counter()
    fitted = fit(config, folder, resume=resume, announce=announce, stop=stop, ranks=ranks, holding=holding)
    learner, split = fitted.learner, fitted.parts.split
    config = learner.config  # with the cut-offs that the data allow
    with explained(folder.path), quiet(), closing(fitted.loggers):
        proxies = {name: whole(tensor) for name, tensor in learner.loss.state_dict().items()}
        ranks.on_first(lambda: folder.save_model(learner.model, proxies, fitted.parts.train.classes))
        model = learner.model.to(device_of(config))  # Lightning has put it back on the CPU
        measure = measuring(config, make_transforms(config, model.statistics)[1], ranks)
        report: RetrievalReport = measure(model, split.test, split.gallery, notes=split.notes + fitted.notes)
        log_measures(fitted.loggers, report.means, config, step=(fitted.epoch + 1) * learner.steps_per_epoch)
    results: dict[str, Any] = {
        "test": as_json(report),
        "epoch": fitted.epoch + 1,
        "chosen_by": "last epoch" if fitted.validation is None else f"best {config.run.select} on validation classes",
        "validation": None if fitted.validation is None else {config.run.select: fitted.validation},
        "epochs": fitted.epochs,
        "seconds": round(fitted.seconds_before + time.perf_counter() - begun, 1),
        "config": config.model_dump(mode="json"),
        "environment": environment(),
    }
    with explained(folder.path):
        ranks.on_first(partial(_write, folder, report, results))
    return report


def _write(folder: RunFolder, report: RetrievalReport, results: dict[str, Any]) -> None:
    folder.save_per_query(report)
    write_json(folder.results, results)
