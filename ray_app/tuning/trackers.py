"""Where trials are shown besides our own report: TensorBoard and MLflow, one run per trial, written when it is over."""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import Protocol

from ray_app.errors import UserError
from ray_app.storage import Storage, join
from ray_app.tuning.search import Search
from ray_app.tuning.trials import Trial, epochs_of

MLFLOW_BATCH = 1000
"""Metrics that MLflow takes at once."""
SHOWN_ERROR = 1000


class Tracker(Protocol):
    """One place where trials are shown."""

    def add(self, trial: Trial) -> None:
        """Write a trial that is over."""


def trackers_of(search: Search) -> list[Tracker]:
    """Those of `tune.trackers`.

    Raises:
        UserError: MLflow is not installed, or no server answers.
    """
    found: list[Tracker] = []
    for name in search.tune.trackers:
        kind, _, uri = name.partition(":")
        found.append(Boards(search) if kind == "tensorboard" else Mlflow(search, uri or None))
    return found


class Boards:
    """TensorBoard files of each trial under `tensorboard/{key of the search}`, its settings under HPARAMS."""

    def __init__(self, search: Search) -> None:
        self._storage: Storage = search.storage
        self._uri = join(search.storage.root(search.config.name), "tensorboard", search.key)

    def add(self, trial: Trial) -> None:
        """See `Tracker`."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (takes seconds)

        with tempfile.TemporaryDirectory() as folder:
            with SummaryWriter(folder) as writer:
                for step, key, value, _ in _curves(trial):
                    writer.add_scalar(key, value, step)
                settings = {path: str(value) if value is None else value for path, value in trial.values.items()}
                score = {} if trial.score is None else {"score": trial.score}
                writer.add_hparams({"strategy": trial.strategy, **settings}, score, run_name=".")
            self._storage.upload_folder(folder, join(self._uri, f"{trial.number:04}"))


class Mlflow:
    """A run of MLflow for each trial, in the experiment of the configuration's name."""

    def __init__(self, search: Search, uri: str | None) -> None:
        """Raises `UserError` as `trackers_of` does."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # seven take minutes, while no trial starts
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else its import reports, and writes into the home
        try:
            from mlflow import MlflowClient  # noqa: PLC0415 (an extra, and it takes seconds)
            from mlflow.exceptions import MlflowException  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise UserError("tune.trackers: mlflow needs pip install 'ray-retail-finetune[mlflow]'") from error
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # else it tells of every table that it makes
        name = search.config.name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of SQLAlchemy, about what MLflow uses of it
                self._client = MlflowClient(uri)
                found = self._client.get_experiment_by_name(name)
                self._experiment = found.experiment_id if found else self._client.create_experiment(name)
        except MlflowException as error:
            raise UserError(
                f"tune.trackers: MLflow cannot be used at {uri or 'its default place'} ({_line(error)}): start the "
                "server, correct the URI, or leave it out"
            ) from error
        self._key = search.key

    def add(self, trial: Trial) -> None:
        """See `Tracker`."""
        from mlflow.entities import Metric, Param  # noqa: PLC0415 (as above)

        tags = {"search": self._key, "state": trial.state, "error": (trial.error or "")[:SHOWN_ERROR]}
        name = f"trial {trial.number}"
        run = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        settings = {"strategy": trial.strategy, **trial.values}
        self._client.log_batch(run, params=[Param(path, str(value)) for path, value in settings.items()])
        # It knows no @ in a name.
        metrics = [
            Metric(key.replace("@", "_at_"), value, int(at * 1000), step) for step, key, value, at in _curves(trial)
        ]
        if trial.score is not None:
            metrics.append(Metric("score", trial.score, 0, trial.epochs))
        for start in range(0, len(metrics), MLFLOW_BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + MLFLOW_BATCH])
        self._client.set_terminated(run, "FAILED" if trial.state == "failed" else "FINISHED")


def _curves(trial: Trial) -> Iterator[tuple[int, str, float, float]]:
    """Epochs that were trained, name and value of a metric, and when it was: reused epochs included."""
    for number, record in enumerate(trial.records, start=1):
        step, at = epochs_of(trial.records[:number]), float(record.get("finished_at", 0.0))
        for key, value in record.items():
            if isinstance(value, float) and key != "finished_at":
                yield step, key, value, at


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
