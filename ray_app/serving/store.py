"""How replicas reach what happened since: the same few calls, wherever it is kept."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from ray_app.serving.events import Change, EventStore, NewRow, News, State

NAMESPACE = "serving"
FEW = 64
"""Users whose events are read in the event loop; it would stand still too long for more."""


class Store(Protocol):
    """Later events and changes of items. What has returned is not lost."""

    async def append(self, rows: Sequence[NewRow]) -> int:
        """See `EventStore.append`."""
        ...

    async def change(self, changes: Sequence[Change]) -> None:
        """See `EventStore.change`."""
        ...

    async def read(self, users: Sequence[str], seen: int) -> State:
        """See `EventStore.read`."""
        ...

    async def news(self, cursor: str) -> News:
        """See `EventStore.news`."""
        ...

    async def ready(self, seen: int) -> None:
        """Returns once whoever keeps events answers; `seen` is the last revision that was read."""
        ...

    async def close(self) -> None:
        """Let go of files and connections; what is kept stays."""
        ...


class LocalStore:
    """In this process: for one replica without Ray."""

    def __init__(self, path: str) -> None:
        self._store = EventStore(path)
        self._one_at_a_time = asyncio.Lock()

    async def append(self, rows: Sequence[NewRow]) -> int:
        """See `Store`."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._store.append, rows)

    async def change(self, changes: Sequence[Change]) -> None:
        """See `Store`."""
        async with self._one_at_a_time:
            await asyncio.to_thread(self._store.change, changes)

    async def read(self, users: Sequence[str], seen: int) -> State:
        """See `Store`."""
        async with self._one_at_a_time:
            return self._store.read(users, seen)

    async def news(self, cursor: str) -> News:
        """See `Store`."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._store.news, cursor)

    async def ready(self, seen: int) -> None:
        """See `Store`."""
        await self.read([], seen)

    async def close(self) -> None:
        """See `Store`."""
        async with self._one_at_a_time:
            self._store.close()


class ActorStore:
    """In one Ray actor on the head node, shared by all replicas; it outlives them, and comes back when it dies.

    A call that the actor died over is sent again: every write may be repeated without harm. A replica on the same node
    reads the actor's file itself, which knows all that was acknowledged: a call costs a millisecond on either side.
    """

    def __init__(self, name: str, path: str) -> None:
        import ray  # noqa: PLC0415 (the application also runs without it)

        options: dict[str, Any] = {
            "name": f"events-{name}",
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": -1,
            "max_task_retries": -1,
            "num_cpus": 0,
            "resources": {"node:__internal_head__": 0.001},  # where the file is
        }
        self._actor = ray.remote(EventStore).options(**options).remote(path)
        self._node = ray.get_runtime_context().get_node_id()
        self._asked = False
        self._file: EventStore | None = None

    async def append(self, rows: Sequence[NewRow]) -> int:
        """See `Store`."""
        count: int = await self._actor.append.remote(list(rows))
        return count

    async def change(self, changes: Sequence[Change]) -> None:
        """See `Store`."""
        await self._actor.change.remote(list(changes))

    async def read(self, users: Sequence[str], seen: int) -> State:
        """See `Store`."""
        if not self._asked:
            node, path = await self._actor.__ray_call__.remote(_place)
            self._asked, self._file = True, EventStore(path) if node == self._node else None
        if self._file is not None and len(users) <= FEW:
            return self._file.read(users, seen)
        state: State = await self._actor.read.remote(list(users), seen)
        return state

    async def news(self, cursor: str) -> News:
        """See `Store`."""
        found: News = await self._actor.news.remote(cursor)
        return found

    async def ready(self, seen: int) -> None:
        """See `Store`; asks the actor, which alone can write."""
        await self._actor.read.remote([], seen)

    async def close(self) -> None:
        """See `Store`; the actor stays for the others."""
        if self._file is not None:
            self._file.close()


def _place(store: EventStore) -> tuple[str, str]:
    """The node that an actor is on, and its file."""
    import ray  # noqa: PLC0415 (as above)

    return ray.get_runtime_context().get_node_id(), store.path
