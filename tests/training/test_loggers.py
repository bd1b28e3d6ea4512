"""Every logger by its name: configuration, curves, measures and pictures arrive, in the run's folder, no network."""

import csv
import json
import struct
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from polyanchor._optional import MissingExtraError
from polyanchor.training.stopping import Interrupted
from polyanchor.training.train import train
from tests.tiny_runs import config
from tests.training.test_train import StopAfter


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No setting of the user's, and no place of the user's to write to."""
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def interrupted_and_resumed(photos, folder, logger):
    """Two epochs with a stop inside the first."""
    of = config(photos, "run.epochs=2", "run.log_images=1", f'run.loggers=["{logger}"]')
    with pytest.raises(Interrupted):
        train(of, folder, stop=StopAfter(1))
    return train(of, folder, resume=True)


@pytest.mark.slow
def test_csv_and_tensorboard_have_configuration_and_final_measures(photos, tmp_path):
    report = train(config(photos, "run.epochs=1", 'run.loggers=["csv", "tensorboard"]'), tmp_path / "run")
    logs = tmp_path / "run" / "logs"
    rows = list(csv.DictReader((logs / "csv" / "part-1" / "metrics.csv").open()))
    assert float(rows[-1]["test/map@r"]) == pytest.approx(report.means["map@r"])
    assert "seed: 0" in (logs / "csv" / "part-1" / "hparams.yaml").read_text()
    scalars = EventAccumulator(str(logs / "tensorboard")).Reload()
    assert scalars.Scalars("test/map@r")[-1].value == pytest.approx(report.means["map@r"])
    assert "_hparams_/session_start_info" in scalars.summary_metadata


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, which mlflow asks in its old words
def test_mlflow_goes_on_in_the_same_run(photos, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="extra: loggers")
    report = interrupted_and_resumed(photos, tmp_path / "run", "mlflow")
    logs = tmp_path / "run" / "logs"
    client = mlflow.MlflowClient(f"sqlite:///{logs / 'mlflow' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'polyanchor'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert (run.info.run_name, run.data.params["run/epochs"]) == ("run", "2")
    assert run.data.metrics["test/mapr"] == pytest.approx(report.means["map@r"])
    assert len(client.get_metric_history(run.info.run_id, "val/mapr")) == 2
    pictures = [file.name for file in (logs / "mlflow" / "artifacts").rglob("*.png")]
    assert len([name for name in pictures if name.startswith("queries")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]


@pytest.mark.slow
def test_wandb_goes_on_in_the_same_run_and_stays_in_the_folder(photos, tmp_path):
    wandb = pytest.importorskip("wandb", reason="extra: loggers")
    report = interrupted_and_resumed(photos, tmp_path / "run", "wandb")
    assert wandb.run is None  # the next run of this process is another one
    place = tmp_path / "run" / "logs" / "wandb"
    parts = sorted(place.glob("offline-run-*"))
    name = (place / "run-id").read_text()
    assert len(parts) == 2 and all(part.name.endswith(name) for part in parts)
    records = list(recorded(parts[-1] / f"run-{name}.wandb"))
    values = {}
    for record in records:
        for item in [*record.history.item, *record.summary.update]:
            values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    assert values["test/map@r"] == pytest.approx(report.means["map@r"])
    configured = {item.key for record in records for item in record.config.update} | {
        item.key for record in records for item in record.run.config.update
    }
    assert {"data", "loss", "run"} <= configured
    pictures = {file.name.partition("_")[0] for file in parts[-1].rglob("*.png")}
    assert {"queries", "proxies"} <= pictures
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]


def recorded(file):
    """Records of a .wandb file: a head of 7 bytes, then blocks of 32 KiB of pieces, as LevelDB's logs have them."""
    from wandb.proto import wandb_internal_pb2

    content, place, whole = file.read_bytes(), 7, b""
    while place < len(content):
        left = 32768 - place % 32768
        if left < 7:  # too little for a head
            place += left
            continue
        size, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_is_one_line_before_anything_is_done(photos, tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{name} is not installed; run: pip install 'polyanchor\[loggers\]'"):
        train(config(photos, f'run.loggers=["{name}"]'), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_failed_run_leaves_no_open_one(photos, tmp_path):
    wandb = pytest.importorskip("wandb", reason="extra: loggers")
    for path in photos.rglob("*.png"):
        path.write_bytes(b"not yet downloaded")
    with pytest.raises(ValueError, match="png"):
        train(config(photos, "run.epochs=1", 'run.loggers=["wandb"]'), tmp_path / "run")
    assert wandb.run is None
