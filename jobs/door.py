"""What every job has in common: the command line, the connection to Ray, and errors as sentences with an exit code.

A job ends with `run(__doc__, main)`, where `main(config)` does the work. Exit codes: 0 done, 1 a fault of ours, 2 wrong
configuration, 3 storage cannot be reached, 4 training cannot go on, 5 the data cannot be used, 6 a version is not
promoted, 130 interrupted.
"""

import logging
import os
import secrets
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from ray_app.config import Config, load_config
from ray_app.config_help import describe_keys
from ray_app.errors import UserError

INTERRUPTED = 130
_OBJECT_STORE_BYTES = 1_000_000_000  # of a laptop's memory; a real cluster's is set where it starts
_RAY_SETTINGS = {
    # The newer parquet reader of Ray Data starts 32 actors for every pass over a file: seconds for nothing.
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_DATA_RAISE_ORIGINAL_MAP_EXCEPTION": "1",  # otherwise our errors come back as text inside one of Ray's
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # each report waits for the next look at the workers: 2 s by default
    # A process more per run, to tell the loop of nodes about to go, which it does not ask, and an error line each time.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a search keeps its trials itself
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # otherwise an interrupted search goes on as if it were over
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the future default, which Ray otherwise announces every time
}


def _set_environment() -> None:
    """Settings that Ray reads when it is first imported: so a job imports its door before anything else."""
    os.environ.update({name: value for name, value in _RAY_SETTINGS.items() if name not in os.environ})
    if "RAY_ADDRESS" not in os.environ and "RAY_AUTH_MODE" not in os.environ:
        # A token for this run alone: Ray's default would leave one in the home folder, which changes later clusters.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))


_set_environment()


def run(
    description: str | None, main: Callable[[Config], None], *, needs_ray: bool = True, section: str | None = None
) -> None:
    """Read the command line, run `main` with the configuration, and leave the process with an exit code.

    An optional `section` of the configuration is begun with its defaults where the file leaves it out.

    With `needs_ray`, `main` finds Ray connected: to the cluster of RAY_ADDRESS (which `ray job submit` sets), or else
    to a new one on this machine, which ends with the job.
    """
    sys.exit(_exit_code(_parser(description), lambda config, _: main(config), needs_ray=needs_ray, section=section))


def run_with_options(
    description: str | None, main: Callable[[Config, Namespace], None], add_options: Callable[[ArgumentParser], None]
) -> None:
    """`run` for a job with options of its own, which connects to Ray (`connected`) when it needs it."""
    parser = _parser(description)
    add_options(parser)
    sys.exit(_exit_code(parser, main, needs_ray=False))


def _exit_code(
    parser: ArgumentParser, main: Callable[[Config, Namespace], None], *, needs_ray: bool, section: str | None = None
) -> int:
    arguments = parser.parse_args()
    if arguments.config is None and not arguments.overrides and not arguments.print_config:
        parser.error("give --config FILE, or settings as key=value")
    try:
        config = load_config(arguments.config, arguments.overrides, section)
        print(config.to_yaml() if arguments.print_config else f"# configuration\n{config.to_yaml()}", flush=True)
        if arguments.print_config:
            return 0
        with connected() if needs_ray else nullcontext():
            main(config, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if (fault := user_error(error)) is None:
            raise
        print(f"error: {fault}", file=sys.stderr, flush=True)
        return fault.exit_code
    return 0


def _parser(description: str | None) -> ArgumentParser:
    parser = ArgumentParser(
        description=description,
        epilog=f"configuration keys, with type and default:\n{describe_keys(Config)}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with the configuration; without, all is default")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example train.num_workers=4")
    return parser


def user_error(error: BaseException) -> UserError | None:
    """The first `UserError` in an error or in those it wraps: its causes, Ray's, and those of lost train workers."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        cause = getattr(current, "cause", None)  # of RayTaskError, whose own text is a traceback
        if isinstance(current, UserError) and cause is None:
            return current
        # Not __context__: a fault of ours while a UserError was being handled is still a fault of ours.
        wrapped = [cause, current.__cause__, getattr(current, "controller_failure", None)]
        wrapped += list(getattr(current, "worker_failures", {}).values())
        waiting += [inner for inner in wrapped if isinstance(inner, BaseException)]
    return None


@contextmanager
def connected() -> Iterator[None]:
    """Ray, connected; a cluster that was started here ends here."""
    address = os.environ.get("RAY_ADDRESS")
    import ray.data  # noqa: PLC0415 (takes seconds)

    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)  # errors reach the person as our own sentences
    try:
        ray.init(logging_level=logging.WARNING, **(_joined_cluster(address) if address else _local_cluster()))
    except ConnectionError as error:
        raise UserError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _joined_cluster(address: str) -> dict[str, Any]:
    # An actor of Ray Train looks for its own cluster, and prints a traceback where the machine has two.
    return {} if "://" in address else {"runtime_env": {"env_vars": {"RAY_ADDRESS": address}}}


def _local_cluster() -> dict[str, Any]:
    from ray import LoggingConfig  # noqa: PLC0415 (as above)

    return {
        "address": "local",
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "runtime_env": {"env_vars": _RAY_SETTINGS},
        # An actor of Ray Train asks the dashboard, which this cluster does not have, and warns every second.
        "logging_config": LoggingConfig(log_level="ERROR"),
    }
