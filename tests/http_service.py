"""The application on a real server in this process, and a client that says little."""

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site(NamedTuple):
    port: int
    app: FastAPI

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """A mapping is sent as JSON, bytes as they are, an iterator of bytes in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who was answered before the end
                connection.request(method, path, data, ({"content-type": "application/json"} if data else {}) | named)
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def recommend(self, **fields: Any) -> Any:
        reply = self.call("POST", "/v1/recommend", fields)
        assert reply.status == 200, reply
        return reply.json


@contextmanager
def running(app: FastAPI) -> Iterator[Site]:
    """A server of its own thread; what fails at the start of the application is raised here."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
            assert thread.is_alive(), "the application did not start"
        yield Site(server.servers[0].sockets[0].getsockname()[1], app)
    finally:
        server.should_exit = True
        thread.join()
