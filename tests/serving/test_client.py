"""The client against a server that fails in every way it should survive."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from ray_app.serving.client import Client, ClientError

Script = list[tuple[int, dict[str, Any], dict[str, str]]]
staying: list[str | None] = []
"""What the last server was told of whether its client may hang up."""
named: list[str | None] = []
"""The ids of the requests to the last server."""


@contextmanager
def answering(script: Script) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives these answers one after another (status 0: it hangs up), and the bodies it was sent."""
    heard: list[Any] = []
    staying.clear()
    named.clear()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            staying.append(self.headers["x-request-disconnect-disabled"])
            named.append(self.headers["x-request-id"])
            heard.append((self.path, self.headers.get("authorization"), json.loads(self.rfile.read(length) or b"{}")))
            status, body, headers = script[len(heard) - 1]
            if not status:
                self.connection.close()
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_fails_on_the_way_is_sent_again_and_counts_once():
    breaks_off = {"content-length": "100"}
    script: Script = [(503, {}, {"retry-after": "0"}), (0, {}, {}), (200, {}, breaks_off), (200, {"accepted": 1}, {})]
    with answering(script) as (url, heard):
        answer = Client(url, "secret").post_events([{"user_id": 1, "item_id": 2}, {"event_id": "own", "user_id": 1}])
    assert answer == {"accepted": 1}
    assert heard[0] == heard[1] == heard[2] == heard[3]
    assert heard[0][1] == "Bearer secret"
    first, second = heard[0][2]["events"]
    assert len(first["event_id"]) == 32
    assert second["event_id"] == "own"


def test_only_who_waits_long_says_that_it_will_not_hang_up():
    with answering([(200, {}, {}), (200, {}, {})]) as (url, _):
        Client(url).recommend(1)
        Client(url, timeout_s=0.5).recommend(1)
    assert staying == ["?1", None]


def test_every_attempt_at_a_call_has_its_id_and_so_has_its_error():
    with answering([(503, {}, {}), (422, {}, {}), (200, {}, {})]) as (url, _):
        with pytest.raises(ClientError) as caught:
            Client(url).recommend(1)
        Client(url).recommend(1)
    first, again, other = named
    assert first == again == caught.value.request_id != other
    assert first is not None
    assert len(first) == 32
    with pytest.raises(ClientError) as caught:
        Client("http://127.0.0.1:9", attempts=1).recommend()
    assert len(caught.value.request_id) == 32


def test_a_fault_of_the_service_is_told_and_one_of_the_proxy_passes():
    """Ray Serve answers a bare 500 for a request whose replica was killed."""
    script: Script = [(500, {}, {"content-type": "text/plain"}), (200, {"items": []}, {})]
    with answering(script) as (url, heard):
        assert Client(url).recommend("u") == {"items": []}
    assert len(heard) == 2
    ours = {"detail": "a fault of the service", "errors": []}
    with (
        answering([(500, ours, {"content-type": "application/problem+json"})]) as (url, heard),
        pytest.raises(ClientError, match="a fault of the service"),
    ):
        Client(url).recommend("u")
    assert len(heard) == 1


def test_what_was_refused_is_not_sent_again():
    problem = {"detail": "1 field does not fit", "errors": [{"field": "body.k", "message": "too small"}]}
    with answering([(422, problem, {})]) as (url, heard):
        with pytest.raises(ClientError, match=r"1 field does not fit \(body\.k: too small\)") as caught:
            Client(url).recommend("u", k=0)
        assert caught.value.status == 422
        assert heard == [("/v1/recommend", None, {"user_id": "u", "k": 0})]


def test_it_gives_up_in_the_end():
    with (
        answering([(503, {"no": "problem"}, {})] * 2) as (url, heard),
        pytest.raises(ClientError, match="answered 503"),
    ):
        Client(url, attempts=2).similar("a/ü")
    assert heard[0][0] == "/v1/items/a%2F%C3%BC/similar?k=10"
    with pytest.raises(ClientError, match="refused"):
        Client("http://127.0.0.1:9", attempts=2).recommend()
