"""Progress to watch: workers post epochs to a board, the driver shows them and writes TensorBoard files."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ray_app.schedule import WISE, Schedule
from ray_app.storage import Storage

POLL_S = 0.3
Record = dict[str, float | str]


class Board:
    """Keeps the records that workers post until the driver takes them. Run as a Ray actor without a CPU."""

    def __init__(self) -> None:
        self._records: list[Record] = []

    def post(self, record: Record) -> None:
        """Add one epoch."""
        self._records.append(record)

    def take(self) -> list[Record]:
        """All records since the last call."""
        taken, self._records = self._records, []
        return taken


@contextmanager
def watched(
    title: str, schedule: Schedule, metric: str, console: Console, storage: Storage, uri: str
) -> Iterator[ActorHandle[Any]]:
    """A board whose records appear on `console`, one line per epoch, and as TensorBoard files under `uri`."""
    board: ActorHandle[Any] = ray.remote(num_cpus=0)(Board).remote()
    done = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        thread = threading.Thread(
            target=_show, args=(board, done, title, schedule, metric, console, Path(folder)), daemon=True
        )
        thread.start()
        try:
            yield board
        finally:
            done.set()
            thread.join()
            ray.kill(board)
            if any(Path(folder).iterdir()):
                storage.upload_folder(folder, uri)


def _show(
    board: ActorHandle[Any],
    done: threading.Event,
    title: str,
    schedule: Schedule,
    metric: str,
    console: Console,
    folder: Path,
) -> None:
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (takes seconds)

    names = [phase.name for phase in schedule.phases]
    epochs = {phase.name: phase.epochs for phase in schedule.phases}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} epochs"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(title, total=sum(epochs.values()))
        writer: SummaryWriter | None = None
        while True:
            last_look = done.is_set()
            try:
                records: list[Record] = ray.get(board.take.remote())
            except RayActorError:
                console.print(f"{title}: goes on unseen, the node that kept its progress is lost", highlight=False)
                break
            for record in records:
                console.print(describe(title, epochs, metric, record), highlight=False)
                if record["phase"] == WISE:
                    continue
                earlier = sum(epochs[name] for name in names[: names.index(str(record["phase"]))])
                number = earlier + int(record["epoch"])
                bars.update(bar, completed=number)
                writer = writer or SummaryWriter(str(folder))
                for key, scalar in record.items():
                    if isinstance(scalar, float):
                        writer.add_scalar(key, scalar, number)
            if last_look:
                break
            done.wait(POLL_S)
        if writer is not None:
            writer.close()


def describe(title: str, epochs: dict[str, int], metric: str, record: Record) -> str:
    """One epoch in one line; a star marks the best validation so far, that before training included."""
    phase = str(record["phase"])
    if phase == WISE:
        return f"{title} {phase}  alpha {record['alpha']:g}  val {metric} {record[f'val/{metric}']:.4f}"
    parts = [f"{title} {phase} {record['epoch']}/{epochs[phase]}", f"loss {record['train/loss']:.4f}"]
    if (value := record.get(f"val/{metric}")) is not None:
        parts.append(f"val {metric} {value:.4f}{' *' if value == record['val/best'] else ''}")
    parts.append(f"{float(record['train/targets_per_s']):,.0f} targets/s")
    return "  ".join(parts)
