"""The registry: every model worth keeping with its evidence, and which one is in production.

`{storage}/{name}/models/{version}/` is an inference checkpoint with `metrics.json`, `report.html` and what serving
needs of the log; it never changes. `production.json` beside the versions (see `production.py`) is moved by
compare-and-set alone, so of two promotions at once one wins and the other is told.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ray_app import checkpoint
from ray_app.checkpoint import MANIFEST_FILE, fetched, read_config, read_manifest, verify
from ray_app.config import fingerprint
from ray_app.errors import UserError
from ray_app.production import Kind, Move, Production
from ray_app.storage import Storage, join

METRICS_FILE, REPORT_FILE = "metrics.json", "report.html"
PRODUCTION_FILE = "production.json"
FORMER_METRIC = "ndcg@10"
"""Of evaluations that do not say what they go by."""


class RegistryError(UserError):
    """A version that does not exist, is not good enough, or a promotion that another one overtook."""

    exit_code = 6


@dataclass(frozen=True)
class Version:
    """One registered model."""

    name: str
    uri: str
    manifest: dict[str, Any]

    @property
    def registered_at(self) -> str:
        """When, in ISO 8601."""
        return str(self.manifest["registered_at"])

    @property
    def dataset(self) -> str:
        """URI of the prepared dataset that it was trained on, whose users and items it serves."""
        return str(self.manifest["dataset"])

    @property
    def main(self) -> str:
        """What the table of its evaluation calls it."""
        return str(self.manifest["evaluation"]["main"])

    @property
    def metric(self) -> str:
        """What its evaluation goes by."""
        return str(self.manifest["evaluation"].get("metric", FORMER_METRIC))

    @property
    def summary(self) -> dict[str, float]:
        """Mean of `metric` over the test part by method."""
        found: dict[str, float] = self.manifest["evaluation"][self.metric]
        return found

    @property
    def baselines(self) -> dict[str, float]:
        """The same of untrained methods alone."""
        return {name: self.summary[name] for name in self.manifest["evaluation"]["baselines"]}


class Registry:
    """The models of one project."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage = storage
        self._root = join(storage.root(name), "models")

    def versions(self) -> list[Version]:
        """All complete versions, in the order in which they were registered."""
        uris = [entry.uri for entry in self._storage.list_files(self._root)]
        names = [uri.split("/")[-2] for uri in uris if uri.endswith(f"/{MANIFEST_FILE}")]
        return sorted((self.find(name) for name in names), key=lambda version: (version.registered_at, version.name))

    def find(self, name: str) -> Version:
        """One version by its name.

        Raises:
            RegistryError: there is none.
        """
        uri = join(self._root, name)
        if "/" in name or not self._storage.exists(join(uri, MANIFEST_FILE)):
            raise RegistryError(f"{uri}: no such version; `python jobs/promote.py --list` shows those there are")
        return Version(name, uri, read_manifest(self._storage, uri))

    def register(self, model_uri: str, metrics: bytes, report: bytes, add: Callable[[Path], None]) -> Version:
        """Keep a published checkpoint with its evidence; the same model with the same evidence is found.

        Args:
            model_uri: the checkpoint.
            metrics: of an evaluation in which it is the main method, as JSON.
            report: the page about it.
            add: writes whatever else serving needs into the folder that it is given.

        Raises:
            CheckpointError: the checkpoint is incomplete or damaged.
        """
        with fetched(self._storage, model_uri) as folder:
            facts = verify(folder)
            files = facts.pop("files")
            name = fingerprint(files, facts.get("dataset"), metrics.decode())
            uri = join(self._root, name)
            if not self._storage.exists(join(uri, MANIFEST_FILE)):
                (folder / METRICS_FILE).write_bytes(metrics)
                (folder / REPORT_FILE).write_bytes(report)
                add(folder)
                facts |= {"checkpoint": model_uri, "registered_at": datetime.now(UTC).isoformat()}
                facts["evaluation"] = _summary(json.loads(metrics))
                checkpoint.seal(folder, read_config(folder), **facts)
                checkpoint.publish(self._storage, folder, uri)
        return self.find(name)

    def production(self) -> tuple[Production, str | None]:
        """What is in use, and the token of this state of affairs that `move` asks for.

        Raises:
            RegistryError: the file is damaged.
        """
        path = join(self._root, PRODUCTION_FILE)
        if not self._storage.exists(path):
            return Production(), None
        text, token = self._storage.read_versioned(path)
        try:
            return Production.model_validate_json(text), token
        except ValidationError as error:
            raise RegistryError(f"{path}: damaged, not a record of what is in production") from error

    def move(
        self, seen: Production, token: str | None, version: str, kind: Kind, why: str, percent: float | None = None
    ) -> Production:
        """Put `version` into production or on trial, if what is there still is what `production()` gave.

        Raises:
            RegistryError: there is no such version, nothing to try it beside, or somebody else was faster.
        """
        self.find(version)
        if percent is not None and seen.version is None:
            raise RegistryError(f"nothing is in production beside which {version} could be tried")
        step = Move(version=version, at=datetime.now(UTC), kind=kind, why=why, percent=percent)
        after = Production(moves=(*seen.moves, step))
        path, data = join(self._root, PRODUCTION_FILE), after.model_dump_json(indent=1).encode()
        won = self._storage.create(path, data) if token is None else self._storage.replace(path, data, token)
        if not won:
            found = self.production()[0].version
            raise RegistryError(f"another promotion was faster: {found} is in production now; {version}: not {kind}")
        return after

    def back(self, seen: Production, token: str | None, why: str) -> Production:
        """End the trial; where none runs, put the version before the present one back into production.

        Raises:
            RegistryError: there is no way back, or somebody else was faster.
        """
        if seen.trial is not None:
            return self.move(seen, token, seen.trial.version, "ended", why)
        if seen.previous is None:
            raise RegistryError(f"nothing was in production before {seen.version or 'now'}")
        return self.move(seen, token, seen.previous, "rolled back", f"from {seen.version}: {why}")


def _summary(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What lists of versions tell of an evaluation; all of it is in `metrics.json`."""
    metric = metrics.get("metric", FORMER_METRIC)
    return {
        "main": metrics["main"],
        "metric": metric,
        metric: {method: found[metric]["mean"] for method, found in metrics["metrics"].items()},
        "baselines": [method for method, origin in metrics["methods"].items() if origin["kind"] == "baseline"],
    }
