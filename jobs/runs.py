"""What the stages of every task share: what a person sees of them, and training that finds its own result."""

from ray.train import ControllerError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ray_app.errors import TrainingError
from ray_app.storage import join
from ray_app.train_config import TrainConfig
from ray_app.training.progress import watched
from ray_app.training.run import Run
from ray_app.training.trainer import build_trainer, publish_result

console = Console()


def bars(title: str) -> Progress:
    """Progress bars of one stage; nothing is drawn where nobody watches."""
    columns = (TextColumn(f"{title}: {{task.description}}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def say(stage: str, verb: str, uri: str) -> None:
    """One line per stage: what was done, and where it is."""
    console.print(f"{stage}: {verb} {uri}", highlight=False, soft_wrap=True)


def train(run: Run) -> str:
    """Fit the run unless its result exists; the URI of the published checkpoint.

    Raises:
        TrainingError: training cannot go on, or the cluster has no room for its workers.
    """
    if run.is_published():
        say(run.role, "found", run.uri)
        return run.uri
    board_uri = join(run.storage.root(run.config.name), "tensorboard", run.name)
    with watched(run.role, run.schedule, run.metric, console, run.storage, board_uri) as board:
        try:
            result = build_trainer(run, board).fit()
        except ControllerError as error:
            if type(error.controller_failure).__name__ != "WorkerGroupStartupTimeoutError":  # which Ray keeps private
                raise
            raise TrainingError(_no_room(run.config.train)) from error
    publish_result(run, result)
    say(run.role, "wrote", run.uri)
    return run.uri


def _no_room(train: TrainConfig) -> str:
    gpu = " and a GPU" if train.use_gpu else ""
    return (
        f"the cluster has no room for {train.num_workers} workers with {train.cpus_per_worker} CPUs{gpu} each, and "
        "got none in time: lower train.num_workers or train.cpus_per_worker, or add nodes"
    )
