"""Put a registered version into production, if it is better than what is there.

    python jobs/promote.py --config jobs/configs/demo.yaml [--version V] [--force] [key=value ...]
    python jobs/promote.py --config jobs/configs/demo.yaml --list | --rollback

The first version must not be behind a baseline; a later one must be ahead of the present one beyond the interval, on
the users, or pictures, of its own dataset. A running service follows within seconds. Exit code 6: not promoted.
"""

from argparse import ArgumentParser, Namespace

from door import connected, run_with_options
from rich.console import Console
from rich.table import Table

from ray_app.config import Config
from ray_app.registry import Production, Registry, RegistryError
from ray_app.storage import Storage
from ray_app.tasks.promotion import beats_baselines, beats_version


def add_options(parser: ArgumentParser) -> None:
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--version", help="which one; unset, the one that was registered last")
    action.add_argument("--rollback", action="store_true", help="back to the version before the present one")
    action.add_argument("--list", action="store_true", help="show the versions and what was in production when")
    parser.add_argument("--force", action="store_true", help="promote without a comparison")


def main(config: Config, options: Namespace) -> None:
    console, storage = Console(), Storage.from_config(config.storage)
    registry = Registry(storage, config.name)
    present, token = registry.production()
    if options.list:
        console.print(*tables(registry, present))
        return
    if options.rollback:
        version, kind, why = back_from(present), "rolled back", f"from {present.version}"
    else:
        version, kind = options.version or newest(registry), "promoted"
        if version == present.version:
            console.print(f"{version}: in production already", highlight=False)
            return
        why = "by force" if options.force else reason(config, registry, version, present)
    registry.move(present, token, version, kind, why)
    console.print(f"{version}: {kind}, {why}", highlight=False, soft_wrap=True)


def newest(registry: Registry) -> str:
    versions = registry.versions()
    if not versions:
        raise RegistryError("no version is registered; run jobs/pipeline.py first")
    return versions[-1].name


def back_from(present: Production) -> str:
    if present.previous is None:
        raise RegistryError(f"nothing was in production before {present.version or 'now'}")
    return present.previous


def reason(config: Config, registry: Registry, version: str, present: Production) -> str:
    candidate = registry.find(version)
    if present.version is None:
        return beats_baselines(candidate)
    with connected():
        return beats_version(Storage.from_config(config.storage), candidate, registry.find(present.version), config)


def tables(registry: Registry, present: Production) -> list[Table]:
    versions = Table("version", "registered", "metric", "", "best baseline", "", title="Versions")
    for version in registry.versions():
        baseline = max(version.baselines.values(), default=None)
        versions.add_row(
            version.name,
            f"{version.registered_at:.16}",
            version.metric,
            f"{version.summary[version.main]:.4f}",
            "" if baseline is None else f"{baseline:.4f}",
            "in production" if version.name == present.version else "",
        )
    moves = Table("when", "version", "", "why", title="Production")
    for move in present.moves:
        moves.add_row(f"{move.at:%Y-%m-%d %H:%M}", move.version, move.kind, move.why)
    return [versions, moves]


if __name__ == "__main__":
    run_with_options(__doc__, main, add_options)
