"""The file that `serve deploy` and a RayService take, and a check as strict as our own configuration's.

`serve build` refuses applications that are built from arguments, and Ray's schema passes over keys it does not know.
"""

from collections.abc import Iterator
from typing import Any

from ray.serve.schema import ServeDeploySchema

from ray_app.config import Config
from ray_app.errors import ConfigError
from ray_app.serving.app import from_file, grpc_options


def deploy_file(config: Config, path: str, overrides: list[str]) -> dict[str, Any]:
    """The service of a configuration file; on the cluster it is read from the same path."""
    options = grpc_options(config.serve)
    file: dict[str, Any] = {
        "proxy_location": "EveryNode",
        "http_options": {"host": config.serve.host, "port": config.serve.port},
        "logging_config": {"enable_access_log": False},  # Ray's would name users, by their paths
        "applications": [
            {
                "name": "recommender",
                "route_prefix": "/",
                "import_path": f"{from_file.__module__}:{from_file.__name__}",
                "args": {"config": path, "overrides": overrides},
            }
        ],
    }
    return check(file if options is None else file | {"grpc_options": options.model_dump(exclude_unset=True)})


def check(file: dict[str, Any]) -> dict[str, Any]:
    """The same file.

    Raises:
        ConfigError: Ray Serve refuses it, or does not know a key.
    """
    try:
        understood = ServeDeploySchema.model_validate(file).model_dump(exclude_unset=True)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    if faults := [f"{key}: Ray Serve knows no such key" for key in _unknown(file, understood, "")]:
        raise ConfigError(faults)
    return file


def _unknown(given: Any, understood: Any, place: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(understood, dict):
        for key, value in given.items():
            if key in understood:
                yield from _unknown(value, understood[key], f"{place}{key}.")
            else:
                yield f"{place}{key}"
    elif isinstance(given, list) and isinstance(understood, list):
        for number, (ours, theirs) in enumerate(zip(given, understood, strict=True)):
            yield from _unknown(ours, theirs, f"{place}{number}.")
