"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): rates that change while a model is trained.

The last phase is trained in stages. The better half of a generation has children, which go on from the parent's
weights (`prefixes`): its first child at its rate, the others at one that is higher or lower by a quarter. What wins is
a schedule like any other, a phase for each stage, which `finetune` repeats: the optimizer begins anew in each.
"""

from collections.abc import Sequence

import numpy as np

from ray_app.tune_config import TuneConfig, Value
from ray_app.tuning.strategies import STAGES
from ray_app.tuning.trials import Trial, finished

PERTURBED = (0.8, 1.25)
FIRST = (0.1, 3.0)
"""Ends of the first generation's factors."""


def born(tune: TuneConfig, trials: Sequence[Trial]) -> dict[str, Value] | None:
    """The factors of the next trial; None while no parent is over, and after the last generation."""
    population = [trial for trial in trials if trial.strategy == "population"]
    generation, member = divmod(len(population), tune.population)
    if generation >= tune.generations:
        return None
    rng = np.random.default_rng([tune.seed, len(population)])
    if generation == 0:
        spread = np.geomspace(*FIRST, tune.population) if tune.population > 1 else np.ones(1)
        return {f"{STAGES}0": float(f"{spread[member]:.4g}")}
    parents = finished([trial for trial in population if len(trial.values) == generation])[: -(-tune.population // 2)]
    if not parents:
        return None
    parent = parents[member % len(parents)]
    factor = float(parent.values[f"{STAGES}{generation - 1}"] or 1)
    factor *= 1.0 if member < len(parents) else rng.choice(PERTURBED) ** (member // len(parents))
    return {**parent.values, f"{STAGES}{generation}": float(f"{factor:.4g}")}
