"""What uvicorn does of a connection that costs a busy replica behind HAProxy too much."""

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


def answer_in_one_piece() -> None:
    """From now on in this process, the head of an answer is written together with the first piece of its body.

    Uvicorn (0.54 and before) writes one, then the other, and uvloop (0.23) sends each at once: the replica, HAProxy and
    the client are woken twice for every answer. An answer whose body takes its time begins with the first of it.
    """
    try:
        from uvicorn.protocols.http.httptools_impl import RequestResponseCycle  # noqa: PLC0415 (not everywhere)
    except ImportError:
        return
    usual: Any = RequestResponseCycle.send
    if hasattr(usual, "__wrapped__"):
        return

    @wraps(usual)
    async def send(self: Any, message: Any) -> None:
        if not isinstance(self.transport, _Joining):
            if self.response_started:
                await usual(self, message)
                return
            self.transport = _Joining(self.transport)
        await usual(self, message)
        if message["type"] == "http.response.body":
            self.transport = self.transport.joined()

    RequestResponseCycle.send = send  # type: ignore[method-assign]


class _Joining:
    """A transport that keeps what is written to it until it is closed or joined."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Keep it."""
        self._written.append(data)

    def close(self) -> None:
        """Send what was kept, and close."""
        self.joined().close()

    def joined(self) -> Any:
        """Send what was kept; the transport itself."""
        if self._written and not self._transport.is_closing():
            self._transport.write(b"".join(self._written))
        self._written.clear()
        return self._transport
