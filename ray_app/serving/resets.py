"""Connections that the other side resets: uvicorn would keep all of each until it had been idle for too long."""

from functools import wraps
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


def let_go_of_resets() -> None:
    """From now on in this process, what is known of a connection goes when the connection goes, however it ends.

    Uvicorn (0.54 and before) cancels the timer of an idle connection if that was closed, and not if it was reset; the
    timer holds the connection, its last request and all that came of it, 13 kB in all, and runs for 90 s under Ray
    Serve. HAProxy resets what it does not need again, in a flood nearly every connection: a replica grew by a megabyte
    for every 80 requests.
    """
    lost: Any = AutoHTTPProtocol.connection_lost
    # One that was wrapped already, or has no such timer, stays as it is.
    if hasattr(lost, "__wrapped__") or not hasattr(AutoHTTPProtocol, "_unset_keepalive_if_required"):
        return

    @wraps(lost)
    def connection_lost(self: Any, error: Exception | None) -> None:
        lost(self, error)
        self._unset_keepalive_if_required()

    AutoHTTPProtocol.connection_lost = connection_lost  # type: ignore[method-assign, assignment]
