"""A client of the service, with the standard library alone: waits, tries again, and counts no event twice."""

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import uuid4

RETRIED = (429, 502, 503, 504)
"""Answers of a service that is busy, or of a proxy whose replica is gone: another time it may work."""
PROBLEM = "application/problem+json"
LONGEST_WAIT_S = 5.0
PATIENT_S = 5.0
"""More than a request waits for the model (`serve.max_wait_s`)."""
STAYING = {"x-request-disconnect-disabled": "?1"}
"""Tells Ray Serve not to listen for whether the client hangs up, which takes a tenth of a replica's time. What was
given up all the same is worked for until it has waited too long, so only those send it who wait for longer."""
HEADERS = {"content-type": "application/json"}
ID_HEADER = "x-request-id"
"""Stands in the service's log and in its problems. Ray Serve gives one to a request that has none, which takes time."""


class ClientError(Exception):
    """The service refused, or could not be reached.

    Attributes:
        status: of the answer, None if there was none.
        request_id: by which the service's log knows the call, and every attempt at it.
    """

    def __init__(self, message: str, status: int | None = None, request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class Client:
    """Every call may be repeated without harm, so what fails on the way is sent again."""

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 10.0, attempts: int = 5) -> None:
        self._url = url.rstrip("/")
        self._headers = HEADERS | (STAYING if timeout_s >= PATIENT_S else {})
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        self._timeout_s = timeout_s
        self._attempts = attempts

    def recommend(self, user_id: int | str | None = None, **fields: Any) -> dict[str, Any]:
        """`POST /v1/recommend`; fields as its schema has them."""
        found: dict[str, Any] = self.call("POST", "/v1/recommend", {"user_id": user_id, **fields})
        return found

    def post_events(self, events: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`POST /v1/events`; an event without an `event_id` is given one, so that sending it again counts once."""
        named = [{"event_id": uuid4().hex, **event} for event in events]
        found: dict[str, Any] = self.call("POST", "/v1/events", {"events": named})
        return found

    def similar(self, item_id: int | str, k: int = 10) -> list[dict[str, Any]]:
        """`GET /v1/items/{id}/similar`."""
        path = f"/v1/items/{quote(str(item_id), safe='')}/similar?k={k}"
        found: list[dict[str, Any]] = self.call("GET", path)["items"]
        return found

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Any route; what it answers.

        Raises:
            ClientError: the service refused, or every attempt failed.
        """
        data, named = None if body is None else json.dumps(body).encode(), uuid4().hex
        headers = self._headers | {ID_HEADER: named}
        request = urllib.request.Request(f"{self._url}{path}", data, headers, method=method)  # noqa: S310
        for attempt in range(1, self._attempts + 1):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:  # noqa: S310
                    return json.load(reply)
            except urllib.error.HTTPError as error:
                with error:
                    # The service's own faults are problems in words; a bare 500 is Ray Serve's, whose replica died.
                    died = error.code == HTTPStatus.INTERNAL_SERVER_ERROR and (
                        error.headers.get_content_type() != PROBLEM
                    )
                    if not (died or error.code in RETRIED) or attempt == self._attempts:
                        raise ClientError(_detail(error), error.code, named) from error
                    wait = float(error.headers.get("retry-after") or 0)
            except (OSError, http.client.HTTPException) as error:
                if attempt == self._attempts:
                    raise ClientError(f"{self._url}: {error}", request_id=named) from error
                wait = 0.0
            # Longer each time, and never at the same moment as everybody else.
            pause = max(wait, 0.1 * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311
            time.sleep(min(pause, LONGEST_WAIT_S))
        raise AssertionError("unreachable")


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        problem = json.load(error)
        faults = "; ".join(f"{fault['field']}: {fault['message']}" for fault in problem["errors"])
        return f"{problem['detail']}{f' ({faults})' if faults else ''}"
    except (ValueError, KeyError, TypeError):
        return f"the service answered {error.code}"
