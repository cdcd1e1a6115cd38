"""How the service answers: where, with what, and how much of it."""

from typing import Annotated

from pydantic import Field

from ray_app.schedule import Section

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class ServeConfig(Section):
    """The HTTP service."""

    host: str = "127.0.0.1"
    """Off loopback (0.0.0.0) API keys are asked for, unless require_keys says otherwise."""
    port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    require_keys: bool | None = None
    """Unset: off loopback alone."""
    api_keys_file: str | None = None
    """Lines `name:sha256` that `jobs/serve.py --new-key` prints; the variable RETAIL_API_KEYS may hold them instead."""
    state_path: str = "state"
    """Local folder of the file with later events and changes of items; on the head node."""
    num_replicas: Positive = 1
    max_replicas: Positive | None = None
    """With more than num_replicas, replicas come and go with the load."""
    cpus_per_replica: Annotated[float, Field(gt=0)] = 1.0
    torch_threads: Positive = 1
    max_batch: Positive = 16
    """Requests that are answered by one pass of the model, when so many wait. Nobody waits for others to come."""
    max_waiting: Positive = 200
    """Requests that may wait in a replica; further ones are sent away with 503 and Retry-After."""
    timeout_s: Seconds = 10.0
    max_body_bytes: Positive = 2_000_000
    rate_limit: Annotated[float, Field(gt=0)] | None = None
    """Requests per second for each key (or address, where none are asked for) and replica. Unset: no limit."""
    log_requests: bool = True
    """A line of JSON for each request: id, route, status and time; nobody's ids."""
    poll_s: Seconds = 2.0
    """How often a replica looks whether another version is in production."""
