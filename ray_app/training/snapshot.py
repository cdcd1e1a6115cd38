"""Everything a run needs to go on exactly where it was: weights, best weights, optimizer and place. No pickle."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

MODEL_FILE = "model.safetensors"
STATE_FILE = "state.safetensors"
PLACE_FILE = "state.json"


@dataclass
class Progress:
    """Where a run stands and what it has seen; plain JSON types only."""

    phase: int = 0
    """Number of the phase, from 0; the number of phases when the run is over."""
    epoch: int = 0
    """Epochs of the phase that are finished."""
    step: int = 0
    """Steps of the present epoch that are finished."""
    best: float | None = None
    best_epoch: int = 0
    """Epoch of the present phase with the best metric; 0 where an earlier phase's is still the best."""
    halvings: int = 0
    """How often the rates of the present phase were halved on a plateau."""
    halved_at: int = 0
    """Epoch of the present phase at which they were, the last time."""
    loss_sum: float = 0.0
    loss_count: float = 0.0
    records: list[dict[str, float | str]] = field(default_factory=list)
    """One per finished epoch."""
    last_saved: str = ""

    def end_phase(self) -> None:
        """Go to the beginning of the next phase."""
        self.phase, self.epoch, self.best_epoch, self.halvings, self.halved_at = self.phase + 1, 0, 0, 0, 0


@dataclass(frozen=True)
class Snapshot:
    """Live tensors of a run at one moment: write them before the next step."""

    model: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    progress: Progress
    average: dict[str, Tensor] = field(default_factory=dict)
    """Running average of the weights, inside a phase that keeps one."""

    @classmethod
    def take(
        cls,
        model: nn.Module,
        optimizer: Optimizer | None,
        best: dict[str, Tensor],
        progress: Progress,
        average: dict[str, Tensor] | None = None,
    ) -> Self:
        """Gather (not copy) the state; `optimizer` is None between phases."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        moments: dict[str, Tensor] = {}
        if optimizer is not None:
            for parameter, state in optimizer.state.items():
                moments |= {f"{names[id(parameter)]}/{key}": value for key, value in state.items() if value is not None}
        return cls(model.state_dict(), best, moments, progress, average or {})

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`, `state.safetensors` and `state.json` into `folder`."""
        self.progress.last_saved = (
            f"in phase {self.progress.phase}, epoch {self.progress.epoch}, step {self.progress.step}"
        )
        self.save_model(folder / MODEL_FILE)
        parts = {"best": self.best, "optimizer": self.optimizer, "average": self.average}
        state = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        save_file({name: value.contiguous() for name, value in state.items()}, folder / STATE_FILE)
        (folder / PLACE_FILE).write_text(json.dumps(asdict(self.progress)))

    def save_model(self, path: Path) -> None:
        """Write the weights alone."""
        save_file({name: value.contiguous() for name, value in self.model.items()}, path)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        parts: dict[str, dict[str, Tensor]] = {"best": {}, "optimizer": {}, "average": {}}
        for name, value in load_file(folder / STATE_FILE).items():
            part, _, key = name.partition("/")
            parts[part][key] = value
        progress = Progress(**json.loads((folder / PLACE_FILE).read_text()))
        return cls(load_file(folder / MODEL_FILE), progress=progress, **parts)

    @staticmethod
    def load_optimizer(optimizer: Optimizer, model: nn.Module, moments: dict[str, Tensor]) -> None:
        """Put saved moments back beside their parameters."""
        named = dict(model.named_parameters())
        for key, value in moments.items():
            name, _, moment = key.rpartition("/")
            optimizer.state[named[name]][moment] = _beside(named[name].detach(), value)


def _beside(parameter: Tensor, moment: Tensor) -> Tensor:
    """On its device, and in its order in memory, by which fused optimizers pair the two: channels last, for one."""
    if moment.shape != parameter.shape:
        return moment.to(parameter.device)
    return torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)
