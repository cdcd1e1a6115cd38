"""The trials of a search: one JSON file each, so that a killed search goes on where it was."""

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ray_app.errors import DataError
from ray_app.schedule import START, WISE, Schedule
from ray_app.storage import Storage, join
from ray_app.tune_config import Strategy, Value
from ray_app.tuning.space import Candidate

Record = dict[str, Any]
"""Of one epoch: phase, epoch, metrics."""


class Trial(BaseModel):
    """One candidate and what became of it."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    number: int
    strategy: Strategy
    values: dict[str, Value]
    key: str
    """Of the training (`Space.key`)."""
    is_planned: bool = False
    """See `Candidate.is_planned`."""
    state: Literal["open", "finished", "stopped", "failed"] = "open"
    score: float | None = None
    """Of the weights that it ended with, on the validation part."""
    epochs: int = 0
    reused: int = 0
    """Epochs that were taken over from a trial with the same first phases."""
    seconds: float = 0.0
    records: list[Record] = []
    """One per epoch, the reused ones included."""
    error: str | None = None

    @property
    def candidate(self) -> Candidate:
        """What was tried."""
        return Candidate(self.strategy, self.values, self.is_planned)

    @property
    def spent(self) -> int:
        """Epochs that this trial trained itself."""
        return self.epochs - self.reused

    def after(self, records: Sequence[Record], schedule: Schedule, metric: str) -> Self:
        """The trial after the epochs of these records."""
        score = score_of(records, schedule, metric)
        return self.model_copy(update={"records": list(records), "epochs": epochs_of(records), "score": score})


class Trials:
    """All trials of a search by their number, and the folder in which they are kept."""

    def __init__(self, storage: Storage, uri: str) -> None:
        self._storage, self._uri = storage, uri
        found = [entry.uri for entry in storage.list_files(uri) if entry.uri.endswith(".json")]
        self.by_number = {trial.number: trial for trial in (_read(storage, name) for name in found)}

    def all(self) -> list[Trial]:
        """In the order in which they were proposed."""
        return [self.by_number[number] for number in sorted(self.by_number)]

    def over(self) -> list[Trial]:
        """Those that nothing more will become of."""
        return [trial for trial in self.all() if trial.state != "open"]

    def update(self, trial: Trial) -> None:
        """Replace what is known of a trial; kept by `keep` alone."""
        self.by_number[trial.number] = trial

    def keep(self, trial: Trial) -> None:
        """Replace what is known of a trial, and write it."""
        self.update(trial)
        self._storage.write_bytes(_path(self._uri, trial.number), trial.model_dump_json(indent=1).encode())

    def spent(self) -> int:
        """Epochs that were trained, reused ones counted once."""
        return sum(trial.spent for trial in self.by_number.values())


def read_trial(storage: Storage, uri: str, number: int) -> Trial:
    """One of the trials that are kept at `uri`."""
    return _read(storage, _path(uri, number))


def _path(uri: str, number: int) -> str:
    return join(uri, f"{number:04}.json")


def _read(storage: Storage, uri: str) -> Trial:
    try:
        return Trial.model_validate_json(storage.read_bytes(uri))
    except ValidationError as error:
        fault = error.errors()[0]
        reason = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        raise DataError(f"{uri}: not a trial of this version ({reason}); delete it to have it run again") from None


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest score, the earliest of several; None where none has one."""
    scored = [trial for trial in trials if trial.score is not None]
    return max(scored, key=lambda trial: (trial.score, -trial.number), default=None)


def finished(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that came to their end, the best first."""
    found = [trial for trial in trials if trial.state == "finished" and trial.score is not None]
    return sorted(found, key=lambda trial: (-(trial.score or 0.0), trial.number))


def score_of(records: Sequence[Record], schedule: Schedule, metric: str) -> float | None:
    """The validation metric of the weights that a run with these records ends with.

    These are the best ones where its last phase has patience, else the last ones. None where nothing was validated yet,
    not a number where the metric is not a number in some epoch.
    """
    found = [float(record[f"val/{metric}"]) for record in records if f"val/{metric}" in record]
    if not found or any(math.isnan(value) for value in found):
        return math.nan if found else None
    return max(found) if schedule.phases[-1].patience else found[-1]


def epochs_of(records: Sequence[Record]) -> int:
    """Trained epochs: looks before the first and after the last are none."""
    return sum(record["phase"] not in (START, WISE) for record in records)


def result_of(trial: Trial, schedule: Schedule, metric: str) -> dict[str, Any]:
    """What a trial tells Ray Tune after an epoch.

    It is judged by its score at this many epochs of work, once it is in its last phase; planned ones are run to
    their end.
    """
    last = trial.records[-1] if trial.records else {}
    return {
        "score": math.nan if trial.score is None else trial.score,
        "epochs": trial.epochs,
        "is_judged": last.get("phase") in (schedule.phases[-1].name, WISE) and f"val/{metric}" in last,
        "is_planned": trial.is_planned,
        "trial": trial.model_dump_json(),
    }
