"""Whether a registered version is good enough to replace the one in production."""

from ray_app.checkpoint import CheckpointError
from ray_app.config import Config
from ray_app.data.dataset import open_dataset
from ray_app.data.pictures import open_pictures
from ray_app.registry import RegistryError, Version
from ray_app.storage import Storage
from ray_app.tasks.classification import evaluate_pictures
from ray_app.tasks.ranking import evaluate


def beats_baselines(candidate: Version) -> str:
    """Why the first version may go into production: no untrained method is better.

    Raises:
        RegistryError: one has the higher mean.
    """
    own, baselines = candidate.summary[candidate.main], candidate.baselines
    if not baselines:
        return f"{candidate.metric} {own:.4f}, compared with no baseline"
    best = max(baselines, key=lambda name: baselines[name])
    told = f"{candidate.metric} {own:.4f}, the best baseline ({best}) {baselines[best]:.4f}"
    if baselines[best] > own:
        raise RegistryError(f"{candidate.name}: not promoted, {told}; --force promotes it all the same")
    return told


def beats_version(storage: Storage, candidate: Version, present: Version, config: Config) -> str:
    """Why one version may replace another: it does better by the same test part, that of the candidate's dataset.

    Both are evaluated anew, so that every user, or picture, is compared with itself.

    Raises:
        RegistryError: it is not better beyond the interval, or the two cannot be compared.
    """
    settings = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"baselines": ()})})
    models = {"candidate": candidate.uri, "production": present.uri}
    try:
        if config.task.kind == "classify":
            found = evaluate_pictures(open_pictures(storage, candidate.dataset), models, settings)
        else:
            found = evaluate(storage, open_dataset(storage, candidate.dataset), models, settings)
    except CheckpointError as error:
        raise RegistryError(f"the two cannot be compared: {error}; --force promotes without a comparison") from error
    lead = found["differences"]["production"][found["metric"]]
    told = f"{found['metric']} {lead['mean']:+.4f} ({lead['low']:+.4f} to {lead['high']:+.4f}) to {present.name}"
    if lead["low"] <= 0:
        raise RegistryError(f"{candidate.name}: not promoted, {told}: not better beyond the interval; or use --force")
    return told
