"""What a person sees while a run trains: a line per epoch, and TensorBoard files."""

import io
import time
from pathlib import Path

import pytest
import ray
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_app.config import StorageConfig
from ray_app.schedule import Phase, Schedule
from ray_app.storage import Storage
from ray_app.training.progress import describe, watched

SCHEDULE = Schedule(phases=(Phase(name="head", epochs=3), Phase(name="full", epochs=9)))


def record(phase: str, epoch: int, ndcg: float, best: float) -> dict[str, float | str]:
    found = {"train/loss": 2.0, "train/targets_per_s": 1234.0, "val/ndcg@10": ndcg, "val/best": best}
    return {"phase": phase, "epoch": epoch, **found}


def test_a_star_marks_what_is_better_than_everything_before() -> None:
    """The first epoch had one after every start of the job, and also where the pretrained weights were better."""
    epochs = {"head": 3}
    assert describe(
        "t",
        epochs,
        "ndcg@10",
        record("head", 1, 0.2, 0.3),
    ) == ("t head 1/3  loss 2.0000  val ndcg@10 0.2000  1,234 targets/s")
    assert "val ndcg@10 0.4000 *" in describe("t", epochs, "ndcg@10", record("head", 2, 0.4, 0.4))
    unvalidated = {key: value for key, value in record("head", 1, 0, 0).items() if not key.startswith("val/ndcg")}
    assert "val" not in describe("t", epochs, "ndcg@10", unvalidated)
    wise: dict[str, float | str] = {"phase": "wise", "epoch": 0, "alpha": 0.5, "val/ndcg@10": 0.25}
    assert describe("t", epochs, "ndcg@10", wise) == "t wise  alpha 0.5  val ndcg@10 0.2500"


@pytest.mark.cluster
def test_epochs_have_their_own_number_after_a_resume_too(ray_cluster: None, tmp_path: Path) -> None:
    """They were counted from 1 by each job, and the curves of a resumed run lay upon each other."""
    console, storage = Console(file=io.StringIO(), width=120), Storage.from_config(StorageConfig(path=str(tmp_path)))
    with watched("t", SCHEDULE, "ndcg@10", console, storage, str(tmp_path / "board")) as board:
        ray.get(board.post.remote(record("full", 4, 0.5, 0.5)))
    assert "t full 4/9" in console.file.getvalue()  # type: ignore[attr-defined]
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [7]


@pytest.mark.cluster
def test_a_run_goes_on_when_its_board_is_lost(ray_cluster: None, tmp_path: Path) -> None:
    """The thread that shows progress died with a traceback."""
    console, storage = Console(file=io.StringIO(), width=120), Storage.from_config(StorageConfig(path=str(tmp_path)))
    with watched("t", SCHEDULE, "ndcg@10", console, storage, str(tmp_path / "board")) as board:
        ray.get(board.post.remote(record("head", 1, 0.5, 0.5)))
        ray.kill(board)
        time.sleep(1)
    assert "t: goes on unseen" in console.file.getvalue()  # type: ignore[attr-defined]
