"""The service on Ray Serve: ingress and model in one deployment, since each hop between two costs milliseconds."""

import logging
import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, gRPCOptions
from ray.serve.schema import LoggingConfig

from ray_app.config import Config, load_config
from ray_app.errors import ConfigError
from ray_app.serve_config import ServeConfig
from ray_app.serving.api import build_api
from ray_app.serving.connections import answer_in_one_piece, let_go_of_resets
from ray_app.serving.garbage import search_seldom
from ray_app.serving.keys import read_keys
from ray_app.serving.meters import Meters
from ray_app.serving.redis_store import VARIABLE as REDIS_PASSWORD
from ray_app.serving.redis_store import RedisStore
from ray_app.serving.rpc import servicer
from ray_app.serving.service import Service
from ray_app.serving.store import ActorStore, Store
from ray_app.storage import Storage

DRAIN_S = 20.0
"""A replica that is to end answers what it has for so long."""
MARGIN = 64
"""Requests beside those of the model that a replica may hold: lists, events, probes."""


def from_file(args: dict[str, Any]) -> Application:
    """What a Serve config file names: `args` are `config`, a YAML file, and `overrides`, a list of `key=value`.

    Raises:
        ConfigError: something is wrong with them.
    """
    if unknown := set(args) - {"config", "overrides"}:
        raise ConfigError([f"args: unknown {sorted(unknown)}; allowed: config, overrides"])
    return build_app(load_config(args.get("config", ""), args.get("overrides", [])))


def build_app(config: Config) -> Application:
    """The application, to be run by `serve.run`.

    Raises:
        ConfigError: API keys are asked for, and there are none.
    """
    settings, storage, name = config.serve, Storage.from_config(config.storage), config.name
    keys = read_keys(settings, dict(os.environ))
    password = os.environ.get(REDIS_PASSWORD) or None
    state = str(Path(settings.state_path).absolute() / f"{name}.sqlite")

    def application() -> FastAPI:
        """Made in the replica."""
        search_seldom()
        let_go_of_resets()
        answer_in_one_piece()
        if settings.log_requests:
            _log_requests()

        async def make(meters: Meters) -> Service:
            shared = settings.redis is not None
            store: Store = await RedisStore.connect(settings, name, password) if shared else ActorStore(name, state)
            return Service(storage, name, store, settings, meters)

        return build_api(make, settings, keys, names_answers=False)

    scale: dict[str, Any] = {"num_replicas": settings.num_replicas}
    if settings.max_replicas is not None:
        waiting = settings.max_batch  # while one batch is computed, another may gather
        scale = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=settings.num_replicas, max_replicas=settings.max_replicas, target_ongoing_requests=waiting
            )
        }

    @serve.ingress(application)
    class Recommender:
        """The HTTP application, and what gRPC calls."""

        async def Recommend(self, request: Any, grpc_context: Any) -> Any:  # noqa: N802 (as in recommend.proto)
            """See `servicer.recommend`."""
            return await servicer.recommend(self.app, request, grpc_context)  # type: ignore[attr-defined]

    deployment = serve.deployment(
        Recommender,
        name="recommender",
        ray_actor_options={"num_cpus": settings.cpus_per_replica},
        max_ongoing_requests=settings.max_waiting + settings.max_batch + MARGIN,
        max_queued_requests=settings.max_waiting,
        graceful_shutdown_timeout_s=DRAIN_S,
        # Ray's access log would name users, by their paths. Without it each of its lines is still made, unless it is
        # below the level: a twentieth of what the event loop does.
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
        **scale,
    )
    bound: Application = deployment.bind()
    return bound


def grpc_options(settings: ServeConfig) -> gRPCOptions | None:
    """What `serve.start` is told of gRPC; None where it is off."""
    if settings.grpc_port is None:
        return None
    function = f"{servicer.__name__}.{servicer.add_to_server.__name__}"
    return gRPCOptions(port=settings.grpc_port, grpc_servicer_functions=[function], enable_reflection=False)


def _log_requests() -> None:
    """Lines of JSON on standard error, once."""
    log = logging.getLogger("ray_app.serving")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
