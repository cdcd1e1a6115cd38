"""A small task for the loop: linear regression, in two phases."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ray_app.schedule import ParamGroup, Phase, Schedule
from ray_app.training.snapshot import Progress

EVERYTHING = (ParamGroup(match=".*"),)
HEAD_ONLY = (ParamGroup(match=r"^backbone\.", rate="frozen"), ParamGroup(match=r"^head\."))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.backbone = nn.Linear(4, 8)
        self.norm_free = nn.Dropout(0.3)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm_free(torch.relu(self.backbone(x)))).squeeze(1)


class Regression:
    """Linear regression on fixed batches; each worker takes its slice of every global batch."""

    metric = "r"
    steps_per_epoch = 6

    def __init__(self, rank: int = 0, size: int = 1, dropout: float = 0.3, pretrained: bool = False) -> None:
        self.memory_settings: dict[str, object] = {"train.tokens_per_batch": 8}
        self.model: nn.Module = Net()
        self.model.norm_free.p = dropout
        self.reference = {}
        if pretrained:
            named = self.model.named_parameters()
            self.reference = {n: p.detach().clone() for n, p in named if n.startswith("backbone.")}
        data = torch.Generator().manual_seed(0)
        self.x = torch.randn(6, 8, 4, generator=data)
        self.y = self.x.sum(2)
        self.rank, self.size = rank, size
        self.poison_at: int | None = None

    def batches(self, rng: np.random.Generator, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(first, self.steps_per_epoch):
            x, y = self.x[step][self.rank :: self.size], self.y[step][self.rank :: self.size]
            yield x * (float("nan") if step == self.poison_at else 1), y

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = batch
        return ((self.model(x) - y) ** 2).sum(), torch.tensor(float(len(y)))

    def validate(self) -> dict[str, tuple[float, float]]:
        error = ((self.model(self.x[0]) - self.y[0]) ** 2).mean().item()
        return {"r": (-error / self.size, 1 / self.size)}


def schedule(*phases: Phase, **settings: object) -> Schedule:
    return Schedule(phases=phases, **settings)


def losses(progress: Progress) -> list[float]:
    return [float(record["train/loss"]) for record in progress.records if "train/loss" in record]


TWO_PHASES = schedule(
    Phase(name="head", epochs=2, learning_rate=0.05, groups=HEAD_ONLY),
    Phase(
        name="full", epochs=3, learning_rate=0.02, groups=EVERYTHING, l2_sp=0.1, warmup=0.2, decay="cosine", patience=5
    ),
)


def weights(task: Regression) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in task.model.state_dict().items()}
