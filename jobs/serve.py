"""Answer over HTTP with what is in production: recommendations, a page at /, and what was measured at /metrics.

    python jobs/serve.py --config jobs/configs/demo.yaml [serve.port=8000] [key=value ...]
    python jobs/serve.py --config jobs/configs/demo.yaml --new-key web
    python jobs/serve.py --config jobs/configs/demo.yaml --build serve.yaml    # then: serve deploy serve.yaml

It follows `jobs/promote.py` within seconds. Without RAY_ADDRESS it serves until it is interrupted; on a cluster that it
joins it leaves the service running there (`serve shutdown` ends it).
"""

import os
import signal
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import yaml
from door import connected, run_with_options

from ray_app.config import Config
from ray_app.errors import ConfigError
from ray_app.registry import Registry, RegistryError
from ray_app.serving.keys import VARIABLE, is_loopback, new_key, read_keys
from ray_app.storage import Storage


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--new-key", metavar="NAME", help="make an API key, print it and its line, and stop")
    parser.add_argument("--build", metavar="FILE", type=Path, help="write the file that `serve deploy` takes, and stop")


def main(config: Config, options: Namespace) -> None:
    if options.new_key is not None:
        key, line = new_key(options.new_key)
        print(f"key, shown once: {key}\nline for serve.api_keys_file or {VARIABLE}: {line}")
        return
    if config.task.kind != "recommend":
        raise ConfigError([f"task.kind: {config.task.kind} has no service yet; jobs/predict.py writes the labels"])
    settings = config.serve
    read_keys(settings, dict(os.environ))  # faults are told before Ray starts
    if options.build is not None:
        if options.config is None:
            raise ConfigError(["--build: needs --config FILE, which the cluster reads from the same path"])
        from ray_app.serving.deploy_file import deploy_file  # noqa: PLC0415 (takes seconds)

        file = deploy_file(config, options.config, options.overrides)
        options.build.write_text(yaml.safe_dump(file, sort_keys=False))
        return
    version = Registry(Storage.from_config(config.storage), config.name).production()[0].version
    if version is None:
        raise RegistryError("nothing is in production; run jobs/promote.py first")
    _set_environment(loopback=is_loopback(settings.host))
    with connected():
        from ray import serve  # noqa: PLC0415 (reads the environment set above)

        from ray_app.serving.app import build_app, grpc_options  # noqa: PLC0415 (as above)

        quiet = {"enable_access_log": False}  # Ray's would name users, by their paths
        address = {"host": settings.host, "port": settings.port}
        serve.start(http_options=address, grpc_options=grpc_options(settings), logging_config=quiet)
        serve.run(build_app(config))
        print(f"serving {version} at http://{settings.host}:{settings.port}", flush=True)
        if "RAY_ADDRESS" in os.environ:
            return
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # now, since Ray sets one of its own
        try:
            while True:
                time.sleep(3600)
        finally:
            serve.shutdown()


def _set_environment(*, loopback: bool) -> None:
    """Serve's faster ways; those that listen on all addresses only where the service itself does."""
    anywhere = str(int(not loopback))
    defaults = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    # A proxy that is not up in time is killed and begun again: on a busy machine 5 s, Serve's own, are never enough.
    defaults |= {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30"}
    # Ten times a second, as is usual, a replica would stop to count what it did; nobody reads it so often.
    defaults |= {"RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000"}
    defaults |= {"RAY_SERVE_ENABLE_DIRECT_INGRESS": anywhere, "RAY_SERVE_ENABLE_HA_PROXY": anywhere}
    os.environ.update({name: value for name, value in defaults.items() if name not in os.environ})


if __name__ == "__main__":
    run_with_options(__doc__, main, add_options)
