"""The model at work, without dropout and gradients, and afterwards as it was before."""

import time

import torch

from ray_app.training.task import Task
from ray_app.training.world import World


def validate(task: Task, world: World) -> dict[str, float]:
    """Means of the task's metrics over all workers, as `val/...`, and the time they took."""
    model, began = task.model, time.perf_counter()
    modes = [(module, module.training) for module in model.modules()]  # frozen norm layers stay in eval mode
    model.eval()
    with torch.no_grad():
        metrics = world.sum_counts(task.validate())
    for module, was_training in modes:
        module.training = was_training
    return {f"val/{name}": value for name, value in metrics.items()} | {"val/time_s": time.perf_counter() - began}
