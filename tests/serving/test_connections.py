"""Connections as a replica treats them; in processes of their own, since the server's classes are changed."""

import subprocess
import sys

import pytest

SCENE = """
import asyncio, gc, socket, struct, sys
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from ray_app.serving.connections import let_go_of_resets

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})

def left():
    gc.collect()
    return sum(isinstance(each, AutoHTTPProtocol) for each in gc.get_objects())

async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", timeout_keep_alive=60))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    address = server.servers[0].sockets[0].getsockname()
    for _ in range(20):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\\r\\nhost: here\\r\\n\\r\\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        # Closed with nothing to linger for: a reset, as HAProxy ends what it does not need again.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        del reader, writer
    for _ in range(500):
        if not server.server_state.connections:
            break
        await asyncio.sleep(0.01)
    assert not server.server_state.connections
    await asyncio.sleep(0.1)
    print(left())
    server.should_exit = True
    await serving

if sys.argv[1] == "let go":
    let_go_of_resets()
    let_go_of_resets()
asyncio.run(main())
"""


@pytest.mark.parametrize(("scene", "left"), [("let go", 0), ("as uvicorn is", 20)])
def test_nothing_is_kept_of_connections_that_were_reset(scene, left):
    """The second says whether uvicorn still needs it: once it fails, `let_go_of_resets` can go."""
    done = subprocess.run([sys.executable, "-c", SCENE, scene], capture_output=True, text=True, check=True)
    assert int(done.stdout) == left


PIECES = """
import asyncio
import uvicorn
from ray_app.serving.connections import answer_in_one_piece

async def app(scope, receive, send):
    path, length = scope["path"], [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": [] if path == "/streamed" else length})
    if path == "/fails":
        raise RuntimeError
    await send({"type": "http.response.body", "body": b"good", "more_body": path == "/streamed"})
    if path == "/streamed":
        await send({"type": "http.response.body", "body": b"bye"})

async def ask(address, *requests):
    "What came, and how the last of it ended."
    reader, writer = await asyncio.open_connection(*address)
    for request in requests:
        writer.write(f"{request} HTTP/1.1\\r\\nhost: here\\r\\n\\r\\n".encode())
    writer.write(b"GET /last HTTP/1.1\\r\\nhost: here\\r\\nconnection: close\\r\\n\\r\\n")
    return await reader.read()

async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off", http="httptools"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    address = server.servers[0].sockets[0].getsockname()
    for requests in (["GET /", "GET /"], ["HEAD /"], ["GET /streamed"], ["GET /fails"]):
        heads = (await ask(address, *requests)).split(b"HTTP/1.1 ")[1:]
        print([(one[:3], one.partition(b"\\r\\n\\r\\n")[2]) for one in heads])
    server.should_exit = True
    await serving

from uvicorn.protocols.http import httptools_impl
writes, make = [], httptools_impl.HttpToolsProtocol.connection_made

def connection_made(self, transport):
    class Counting:
        def __getattr__(self, name):
            return getattr(transport, name)
        def write(self, data):
            writes.append(data)
            transport.write(data)
    make(self, Counting())

httptools_impl.HttpToolsProtocol.connection_made = connection_made
import sys
if sys.argv[1] == "in one":
    answer_in_one_piece()
    answer_in_one_piece()
asyncio.run(main())
print(len(writes))
"""


@pytest.mark.parametrize(("scene", "writes"), [("in one", 9), ("as uvicorn is", 15)])
def test_answers_are_the_same_and_written_in_one_piece(scene, writes):
    """Once the second has as few, `answer_in_one_piece` can go."""
    done = subprocess.run([sys.executable, "-c", PIECES, scene], capture_output=True, text=True, check=True)
    *answers, written = done.stdout.splitlines()
    good, chunked = (b"200", b"good"), (b"200", b"4\r\ngood\r\n3\r\nbye\r\n0\r\n\r\n")
    assert answers == [str([good, good, good]), str([(b"200", b""), good]), str([chunked, good]), str([(b"200", b"")])]
    assert int(written) == writes
