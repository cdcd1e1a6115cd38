"""What came of candidate backbones: the best registered version of each."""

import json
from collections.abc import Iterable

from ray_app.checkpoint import CONFIG_FILE
from ray_app.config import Config
from ray_app.content.candidates import with_candidate
from ray_app.data.picture_set import PictureSet
from ray_app.picture_config import Candidate
from ray_app.registry import Registry
from ray_app.storage import join


def outcomes_of(pictures: PictureSet, config: Config, candidates: Iterable[Candidate]) -> dict[Candidate, float]:
    """The metric on the test part by candidate, of those of which a version for the same set is registered."""
    found: dict[tuple[str, str | None], float] = {}
    for version in Registry(pictures.storage, config.name).versions():
        if version.dataset == pictures.uri:
            begun = json.loads(pictures.storage.read_bytes(join(version.uri, CONFIG_FILE)))["classifier"]
            name, reached = (begun["backbone"], begun["weights"]), version.summary[version.main]
            found[name] = max(reached, found.get(name, reached))
    names = {candidate: with_candidate(config, candidate).classifier for candidate in candidates}
    return {
        candidate: found[settled.backbone, settled.weights]
        for candidate, settled in names.items()
        if settled is not None and (settled.backbone, settled.weights) in found
    }
