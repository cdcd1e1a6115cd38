"""One trial on several workers of Ray Train: Ray Tune looks after a driver, which hears of every epoch."""

from typing import Any

from ray import tune
from ray.train import Checkpoint
from ray.tune.integration.ray_train import TuneReportCallback

from ray_app.errors import UserError
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress
from ray_app.training.trainer import build_trainer
from ray_app.tuning.search import Search
from ray_app.tuning.trials import Trial, read_trial, result_of
from ray_app.tuning.worker import failure, standing


def run_distributed_trial(config: dict[str, Any], search: Search) -> None:
    """What Ray Tune runs for a trial, of which `config` has the number; a fault is reported, not raised.

    Fitted under its name, a run that was interrupted goes on from its last checkpoint.
    """
    trial = read_trial(search.storage, search.trials_uri, config["number"])
    try:
        run = search.run_of(trial.candidate)
        run.prepare()
        result = build_trainer(run, callbacks=[_Epochs(search, run, trial)]).fit()
        if isinstance(result.return_value, UserError):
            raise result.return_value
    except Exception as error:
        tune.report(failure(trial, search, error))


class _Epochs(TuneReportCallback):  # type: ignore[misc]
    """Tells Ray Tune where the trial stands, from the controller of Ray Train."""

    def __init__(self, search: Search, run: Run, trial: Trial) -> None:
        super().__init__()
        self._search, self._schedule, self._trial = search, run.schedule, trial

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """See `UserCallback`."""
        told = metrics[0]
        if "phase" not in told:  # a checkpoint inside an epoch
            return
        progress = Progress(phase=told["at/phase"], records=told["records"])
        try:
            now = standing(self._trial, self._schedule, self._search.metric, progress)
        except UserError as error:
            result = failure(self._trial, self._search, error)
        else:
            result = result_of(now, self._schedule, self._search.metric)
        super().after_report(run_context, [result], None)
