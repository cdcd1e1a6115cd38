"""How the service answers: where, with what, and how much of it."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ray_app.schedule import Section

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


def _without_password(url: str) -> str:
    if not re.fullmatch(r"rediss?://([^\s/:@]+@)?[^\s/@?]+(/\d+)?", url):
        raise ValueError("should be redis://host:6379/0, its password not in it but in RETAIL_REDIS_PASSWORD")
    return url


class RollbackConfig(Section):
    """When the service itself undoes the last move of `production.json`, by the newest answers of what it brought."""

    min_requests: Annotated[int, Field(ge=1, le=1000)] = 100
    """Nothing is judged by fewer answers; a thousand are remembered."""
    error_rate: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """A larger share of them failed."""
    p99_s: Seconds = 2.0
    """99 of 100 were made faster, waiting for the model not counted; slower ones than this are too slow."""
    watch_s: Seconds = 1800.0
    """So long a promoted version is watched; a trial is until it ends."""


class ServeConfig(Section):
    """The HTTP service."""

    host: str = "127.0.0.1"
    """Off loopback (0.0.0.0) API keys are asked for, unless require_keys says otherwise."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    grpc_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Also listen for gRPC (ray_app/serving/rpc/recommend.proto). Ray Serve does so on all addresses, whatever host is,
    so API keys are asked for."""
    require_keys: bool | None = None
    """Unset: off loopback, or with gRPC."""
    api_keys_file: str | None = None
    """Lines `name:sha256` that `jobs/serve.py --new-key` prints; the variable RETAIL_API_KEYS may hold them instead."""
    state_path: str = "state"
    """Local folder of the file with later events and changes of items; on the head node."""
    redis: Annotated[str, AfterValidator(_without_password)] | None = None
    """redis://host:6379/0 (rediss:// for TLS) keeps them there instead: for many nodes. The server must keep what it is
    given: appendonly yes and appendfsync always, or copies. The variable RETAIL_REDIS_PASSWORD holds its password."""
    redis_replicas: Annotated[int, Field(ge=0)] = 0
    """Copies of the Redis server that must have a write before it is acknowledged."""
    retrieval: Literal["auto", "exact", "ann"] = "auto"
    """exact: every item is scored. ann: those that an index finds (needs `[ann]`), and every item where it finds too
    few. auto: ann from 200,000 items on."""
    num_replicas: Positive = 1
    """Processes that answer, each with the whole model."""
    max_replicas: Positive | None = None
    """With more than num_replicas, replicas come and go with the load."""
    cpus_per_replica: Annotated[float, Field(gt=0)] = 1.0
    """What each replica asks of the cluster."""
    torch_threads: Positive = 1
    """Of each replica."""
    max_batch: Positive = 16
    """Requests that are answered by one pass of the model, when so many wait. Nobody waits for others to come."""
    max_waiting: Positive = 200
    """Requests that may wait for a version in a replica; further ones are sent away with 503 and Retry-After."""
    max_wait_s: Seconds = 2.0
    """Who has waited so long when its turn comes is sent away too: under too much load nobody waits in vain."""
    timeout_s: Seconds = 10.0
    """After so long a request is answered with 504."""
    max_body_bytes: Positive = 2_000_000
    """Larger requests are answered with 413."""
    rate_limit: Annotated[float, Field(gt=0)] | None = None
    """Requests per second for each key (or address, where none are asked for) and replica. Unset: no limit."""
    log_requests: bool = True
    """A line of JSON for each request: id, route, status and time; nobody's ids."""
    poll_s: Seconds = 2.0
    """How often a replica looks whether another version is in production, and what customers did since."""
    rollback: RollbackConfig | None = RollbackConfig()
    """Null: only a person moves back."""
