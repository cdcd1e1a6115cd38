"""Put a registered version into production, if it is better than what is there; or try it beside that first.

    python jobs/promote.py --config jobs/configs/demo.yaml [--version V] [--force] [key=value ...]
    python jobs/promote.py --config jobs/configs/demo.yaml --canary 10 | --shadow 100 [--version V]
    python jobs/promote.py --config jobs/configs/demo.yaml --list | --rollback

The first version must not be behind a baseline; a later one must be ahead of the present one beyond the interval, on
the users, or pictures, of its own dataset. A canary answers so many percent of the users, always the same ones; a
shadow is asked too, and its lists are compared with those that are given (`/v1/models`). A running service follows
within seconds, and takes back by itself what breaks the rules of `serve.rollback`. Exit code 6: not promoted.
"""

from argparse import ArgumentParser, Namespace

from door import connected, run_with_options
from rich.console import Console
from rich.table import Table

from ray_app.config import Config
from ray_app.errors import ConfigError
from ray_app.production import Move, Production
from ray_app.registry import Registry, RegistryError
from ray_app.storage import Storage
from ray_app.tasks.promotion import beats_baselines, beats_version


def add_options(parser: ArgumentParser) -> None:
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--canary", type=percent, metavar="PERCENT", help="let it answer so many percent of the users")
    action.add_argument("--shadow", type=percent, metavar="PERCENT", help="compare its lists, for so many of them")
    action.add_argument("--rollback", action="store_true", help="end the trial, or back to the version before")
    action.add_argument("--list", action="store_true", help="show the versions and what was in production when")
    parser.add_argument("--version", help="which one; unset, the one on trial, or else the one registered last")
    parser.add_argument("--force", action="store_true", help="promote without a comparison")


def percent(text: str) -> float:
    if not 0 < (number := float(text)) <= 100:
        raise ValueError
    return number


def main(config: Config, options: Namespace) -> None:
    console, storage = Console(), Storage.from_config(config.storage)
    registry = Registry(storage, config.name)
    if options.rollback and options.version:
        raise ConfigError(["--rollback: leads to what was before, and takes no --version"])
    present, token = registry.production()
    if options.list:
        console.print(*tables(registry, present))
        return
    if options.rollback:
        after = registry.back(present, token, "by hand")
    else:
        version = options.version or (present.trial.version if present.trial else newest(registry))
        if version == present.version:
            console.print(f"{version}: in production already", highlight=False)
            return
        if (share := options.canary or options.shadow) is not None:
            after = registry.move(present, token, version, "canary" if options.canary else "shadow", "by hand", share)
        else:
            why = "by force" if options.force else reason(config, registry, version, present)
            after = registry.move(present, token, version, "promoted", why)
    move = after.moves[-1]
    console.print(f"{move.version}: {move.kind}{share_of(move)}, {move.why}", highlight=False, soft_wrap=True)


def newest(registry: Registry) -> str:
    versions = registry.versions()
    if not versions:
        raise RegistryError("no version is registered; run jobs/pipeline.py first")
    return versions[-1].name


def reason(config: Config, registry: Registry, version: str, present: Production) -> str:
    candidate = registry.find(version)
    if present.version is None:
        return beats_baselines(candidate)
    with connected():
        return beats_version(Storage.from_config(config.storage), candidate, registry.find(present.version), config)


def share_of(move: Move) -> str:
    return "" if move.percent is None else f" of {move.percent:g}% of the users"


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
            standing(version.name, present),
        )
    moves = Table("when", "version", "", "why", title="Production")
    for move in present.moves:
        moves.add_row(f"{move.at:%Y-%m-%d %H:%M}", move.version, move.kind + share_of(move), move.why)
    return [versions, moves]


def standing(version: str, present: Production) -> str:
    trial = present.trial
    if trial is not None and trial.version == version:
        return trial.kind + share_of(trial)
    return "in production" if version == present.version else ""


if __name__ == "__main__":
    run_with_options(__doc__, main, add_options)
