"""A connection that was reset leaves nothing behind; in a process of its own, since the server's class is changed."""

import subprocess
import sys

import pytest

SCENE = """
import asyncio, gc, socket, struct, sys
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from ray_app.serving.resets import let_go_of_resets

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
    """The second says whether uvicorn still needs it: once it fails, `resets` can go."""
    done = subprocess.run([sys.executable, "-c", SCENE, scene], capture_output=True, text=True, check=True)
    assert int(done.stdout) == left
