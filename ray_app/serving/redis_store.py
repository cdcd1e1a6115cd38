"""What happened since the dataset was prepared, in Redis: for replicas on many nodes that share no disk.

A write is acknowledged when the server has it as it was told to keep it: in its append-only file (`appendonly yes`,
`appendfsync always`), or in so many copies (`serve.redis_replicas`).
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Self

from ray_app.errors import UserError
from ray_app.serve_config import ServeConfig
from ray_app.serving.customers import Event
from ray_app.serving.events import KEPT, NEWEST, Change, NewRow, News, State
from ray_app.serving.problems import ProblemError

VARIABLE = "RETAIL_REDIS_PASSWORD"
TIMEOUT_S, TRIES, PAUSE_S = 2.0, 3, 0.05
COPIED_MS = 1000
"""So long a write may take to reach the copies that it has to."""
APPEND = """
local new = 0
for n = 2, #KEYS, 2 do
  local row = (n - 2) / 2 * 4 + 1
  if redis.call('HSETNX', KEYS[n], ARGV[row + 1], '') == 1 then
    redis.call('ZADD', KEYS[n + 1], ARGV[row + 2], ARGV[row + 3])
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'row', ARGV[row + 4])
    new = new + 1
  end
end
return new
"""
"""Keys: the arrivals; what is known of a user, and the events, of each row.

Values: how many arrivals are kept; key, time, event and arrival of each row.
"""
CHANGE = """
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local revision = math.max(tonumber(last[2] or 0), tonumber(ARGV[1]))
for n = 2, #ARGV, 2 do
  revision = revision + 1
  local before = redis.call('HGET', KEYS[2], ARGV[n])
  if before then redis.call('ZREM', KEYS[1], before) end
  redis.call('ZADD', KEYS[1], string.format('%.0f', revision), ARGV[n + 1])
  redis.call('HSET', KEYS[2], ARGV[n], ARGV[n + 1])
end
"""
"""Revisions go up with the clock, so that a server that lost its last ones gives no number twice."""
log = logging.getLogger(__name__)


class RedisStore:
    """See `Store`. Times and revisions are scores of sorted sets: exact microseconds until the year 2255."""

    def __init__(self, client: Any, name: str, copies: int) -> None:
        self._client = client
        self._copies = copies
        self._events, self._known = f"retail:{name}:events:", f"retail:{name}:known:"
        self._changes, self._said = f"retail:{name}:changes", f"retail:{name}:said"
        self._arrivals = f"retail:{name}:arrivals"

    @classmethod
    async def connect(cls, settings: ServeConfig, name: str, password: str | None) -> Self:
        """A store whose server answers, and keeps what it is given.

        Raises:
            UserError: it does not.
        """
        assert settings.redis is not None
        try:
            from redis.asyncio import Redis  # noqa: PLC0415 (an extra)
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import ConstantBackoff  # noqa: PLC0415
            from redis.exceptions import AuthenticationError, RedisError  # noqa: PLC0415
        except ImportError as error:
            raise UserError("serve.redis needs the redis library: pip install 'ray-retail-finetune[redis]'") from error
        client = Redis.from_url(
            settings.redis,
            password=password,
            decode_responses=True,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(ConstantBackoff(PAUSE_S), TRIES),  # every write may be repeated without harm
        )
        try:
            kept = await client.info("persistence")
            if fault := _forgetful(kept, await _when_synced(client), settings.redis_replicas):
                raise UserError(f"{settings.redis}: {fault}")
        except BaseException as error:
            await client.aclose()
            if isinstance(error, AuthenticationError):
                raise UserError(f"{settings.redis}: refuses the password; set {VARIABLE}") from error
            if isinstance(error, RedisError | OSError):
                raise UserError(f"{settings.redis}: no Redis answers there (serve.redis): {error}") from error
            raise
        return cls(client, name, settings.redis_replicas)

    async def append(self, rows: Sequence[NewRow]) -> int:
        """See `Store`."""
        keys = [key for row in rows for key in (self._known + row.user, self._events + row.user)]
        values = [
            value
            for row in rows
            for value in (row.key, row.time, _text(row.key, row.item, row.type), json.dumps(row, ensure_ascii=False))
        ]
        return int(await self._write(APPEND, [self._arrivals, *keys], [KEPT, *values]))

    async def change(self, changes: Sequence[Change]) -> None:
        """See `Store`."""
        values = [value for change in changes for value in (_text(change.item, change.kind), _text(*change))]
        await self._write(CHANGE, [self._changes, self._said], [time.time_ns() // 1000, *values])

    async def read(self, users: Sequence[str], seen: int) -> State:
        """See `Store`; one trip, whoever and however many are asked for."""
        with _or_unavailable():
            async with self._client.pipeline(transaction=False) as pipe:
                for user in users:
                    pipe.zrange(self._events + user, -NEWEST, -1, withscores=True)
                pipe.zrangebyscore(self._changes, f"({seen}", "+inf", withscores=True)
                *found, changed = await pipe.execute()
        kept = [[(json.loads(event), int(us)) for event, us in of_user] for of_user in found]
        events = [[Event(item, us, kind) for (_, item, kind), us in of_user] for of_user in kept]
        changes = [Change(*json.loads(change)) for change, _ in changed]
        return State(events, changes, int(changed[-1][1]) if changed else seen)

    async def news(self, cursor: str) -> News:
        """See `Store`."""
        with _or_unavailable():
            found = await self._client.xread({self._arrivals: cursor or "0"})
        arrived = [arrival for _, arrivals in found for arrival in arrivals]
        rows = [NewRow(*json.loads(fields["row"])) for _, fields in arrived]
        return News(rows, arrived[-1][0] if arrived else cursor)

    async def ready(self, seen: int) -> None:
        """See `Store`."""
        await self.read([], seen)

    async def close(self) -> None:
        """See `Store`."""
        await self._client.aclose()

    async def _write(self, script: str, keys: list[str], values: list[Any]) -> Any:
        with _or_unavailable():
            async with self._client.pipeline(transaction=False) as pipe:  # WAIT is for what its own connection wrote
                pipe.eval(script, len(keys), *keys, *values)
                if self._copies:
                    pipe.wait(self._copies, COPIED_MS)
                result, *copied = await pipe.execute()
        if copied and copied[0] < self._copies:
            raise _unavailable(f"{copied[0]} of {self._copies} copies have it; send it again")
        return result


def _text(*parts: str | None) -> str:
    return json.dumps(parts, ensure_ascii=False)


@contextmanager
def _or_unavailable() -> Iterator[None]:
    from redis.exceptions import RedisError  # noqa: PLC0415 (an extra)

    try:
        yield
    except (RedisError, OSError) as error:
        log.error("Redis: %s", error)
        raise _unavailable("what happened since cannot be read or kept now") from error


def _unavailable(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, Retry_After="1")


async def _when_synced(client: Any) -> str | None:
    """The server's `appendfsync`; None where it does not say, as hosted ones."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 (an extra)

    try:
        found: str | None = (await client.config_get("appendfsync")).get("appendfsync")
    except ResponseError:
        return None
    return found


def _forgetful(persistence: dict[str, Any], synced: str | None, copies: int) -> str | None:
    """Why a server may lose what it acknowledged, if that cannot be borne; what can be is warned of."""
    if copies:
        return None
    if not persistence.get("aof_enabled"):
        return (
            "keeps nothing on disk as it comes (appendonly no), so that events would be lost with it; start it with "
            "--appendonly yes --appendfsync always, or have every write copied (serve.redis_replicas)"
        )
    if synced != "always":
        log.warning(
            "Redis: appendfsync is %s; what was acknowledged in the second before its machine dies is lost. "
            "Nothing is lost with appendfsync always, or with copies (serve.redis_replicas)",
            synced or "not told",
        )
    return None
