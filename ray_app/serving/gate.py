"""What every request passes before the application: its id, key, rate and size; and its line in the log afterwards."""

import json
import logging
import re
import time
from collections import OrderedDict
from http import HTTPStatus
from secrets import token_hex

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ray_app.serve_config import ServeConfig
from ray_app.serving.client import ID_HEADER
from ray_app.serving.keys import Keys
from ray_app.serving.meters import Meters
from ray_app.serving.problems import ProblemError, problem

GUARDED = ("/v1/", "/metrics")
CALLERS = 10_000
"""So many are remembered for the rate limit; the longest unseen are forgotten."""
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
log = logging.getLogger(__name__)


class Gate:
    """ASGI middleware.

    Args:
        app: what it guards.
        settings: limits.
        keys: None where no key is asked for.
        meters: where it counts.
        names_answers: whether to name the request in its answer; Ray Serve does so itself.
    """

    def __init__(
        self, app: ASGIApp, settings: ServeConfig, keys: Keys | None, meters: Meters, *, names_answers: bool = True
    ) -> None:
        self._app = app
        self._names_answers = names_answers
        self._settings = settings
        self._keys = keys
        self._meters = meters
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, request = time.perf_counter(), Request(scope)
        given = request.headers.get(ID_HEADER, "")
        scope["request_id"] = given if _ID.fullmatch(given) else token_hex(16)
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
                # What Ray Serve names is what was given, also where that is no id.
                if self._names_answers or scope["request_id"] != given:
                    headers.append((ID_HEADER.encode(), scope["request_id"].encode()))
                message = {**message, "headers": headers}
            await send(message)

        try:
            if scope["path"].startswith(GUARDED):
                self._admit(request)
            await self._app(scope, await self._read(request, receive), send_named)
        except ProblemError as error:
            refusal = problem(error.status, error.detail, scope["request_id"], [], error.headers)
            await refusal(scope, receive, send_named)
        except Exception:
            log.exception("request %s failed", scope["request_id"])
            if not status:
                raise
        finally:
            self._write(request, status or HTTPStatus.INTERNAL_SERVER_ERROR, time.perf_counter() - start)

    def _admit(self, request: Request) -> None:
        caller = request.client.host if request.client else ""
        if self._keys is not None:
            kind, _, key = request.headers.get("authorization", "").partition(" ")
            owner = self._keys.owner(key.strip()) if kind.lower() == "bearer" else None
            if owner is None:
                detail = "an API key is needed: Authorization: Bearer KEY" if not key else "the API key is not known"
                raise ProblemError(HTTPStatus.UNAUTHORIZED, detail, WWW_Authenticate="Bearer")
            caller = f"key {owner}"
        if (rate := self._settings.rate_limit) is None:
            return
        now = time.monotonic()
        tokens, before = self._buckets.pop(caller, (max(rate, 1.0), now))
        tokens = min(max(rate, 1.0), tokens + (now - before) * rate)  # a second's worth may come at once
        self._buckets[caller] = (tokens - (tokens >= 1), now)
        if len(self._buckets) > CALLERS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            wait = str(max(1, round((1 - tokens) / rate)))
            raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, f"more than {rate:g} requests a second", Retry_After=wait)

    async def _read(self, request: Request, receive: Receive) -> Receive:
        """The whole body, as one message for the application; too long a one is not read to its end."""
        most = self._settings.max_body_bytes
        # Whoever sends so much is not listened to any longer.
        too_long = ProblemError(HTTPStatus(413), f"the body has more than {most} bytes", Connection="close")
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > most:
            raise too_long
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return receive
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                raise too_long
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay

    def _write(self, request: Request, status: int, seconds: float) -> None:
        # The template of the path, not the path: that may name a user.
        route = getattr(request.scope.get("route"), "path", "(none)")
        self._meters.answered(request.method, route, status, seconds)
        if log.isEnabledFor(logging.INFO):
            facts = {"request_id": request.scope["request_id"], "method": request.method, "route": route}
            log.info(json.dumps({**facts, "status": int(status), "ms": round(seconds * 1000, 2)}))
