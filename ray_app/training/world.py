"""The workers of one run: their sums and their agreement. Without a process group there is one worker."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """This worker's place among `size` workers."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def current(cls, device: torch.device | None = None) -> "World":
        """The world of the running process group, or a world of one."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size(), device or torch.device("cpu"))
        return cls(0, 1, device or torch.device("cpu"))

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over the workers, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def sum_counts(self, local: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Means over all workers of metrics given as (sum, count), without those that nobody counted.

        Every worker passes the same names.
        """
        names = sorted(local)
        pairs = torch.tensor([local[name] for name in names], dtype=torch.float64).reshape(-1, 2)
        pairs = self.sum(pairs.to(self.device)).cpu()
        return {name: (pairs[i, 0] / pairs[i, 1]).item() for i, name in enumerate(names) if pairs[i, 1]}

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over workers."""
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # Its new name came with torch 2.13, and older versions know the old one alone.
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)
