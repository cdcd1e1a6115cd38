"""A look at the running service: it is started, asked for five households, told of a purchase and asked again."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ray_app.errors import UserError
from ray_app.serving.client import Client, ClientError

START_S, STOP_S = 180, 60
HOUSEHOLDS, SHOWN = 5, 5


@contextmanager
def serving(command: list[str], url: str, log: Path) -> Iterator[Client]:
    """The service, from when it is ready until it is not needed any more.

    Raises:
        UserError: it did not start; the end of its log is in the message.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output)  # noqa: S603 (our own job)
    try:
        client, deadline = Client(url, attempts=1), time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.call("GET", "/readyz")
                break
            except ClientError:
                time.sleep(0.5)
        else:
            raise UserError(f"the service did not start; the end of {log}:\n{log.read_text(errors='replace')[-2000:]}")
        yield Client(url)
    finally:
        process.terminate()  # not SIGINT, which whoever was started in a shell's background ignores
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def shop(client: Client, console: Console) -> None:
    """Five households, then what one purchase changes.

    Raises:
        UserError: the answer does not know of the purchase.
    """
    users = client.call("GET", "/v1/users?k=1000")
    histories = {user: client.call("GET", f"/v1/users/{user}/history?k={SHOWN}")["items"] for user in users[::37]}
    chosen = [user for user, items in histories.items() if len(items) == SHOWN][:HOUSEHOLDS]
    table = Table(title="Five households, over HTTP")
    for title in ("household", "bought, latest first", "recommended", "why"):
        table.add_column(title)
    for user in chosen:
        items = client.recommend(user, k=SHOWN)["items"]
        bought = (item["title"] for item in histories[user])
        reasons = (item["reason"]["text"] for item in items)
        # A row each, so that a reason stands beside its item however narrow the terminal is.
        for row in zip_longest([user], bought, map(_scored_title, items), reasons, fillvalue=""):
            table.add_row(*map(Text, row))
        table.add_section()
    console.print(table)
    _buy(client, chosen[0], console)


def _buy(client: Client, user: str, console: Console) -> None:
    before = client.recommend(user, k=SHOWN)["items"]
    item = client.recommend(user, k=1, exclude_seen=True)["items"][0]
    client.post_events([{"user_id": user, "item_id": item["item_id"]}])
    after = client.recommend(user, k=SHOWN)["items"]
    table = Table("before", "after", title=f"Household {user} buys {item['title']}")
    table.add_row(Text(_titles(before)), Text(_titles(after)))
    console.print(table)
    if [item["item_id"] for item in after] == [item["item_id"] for item in before]:
        raise UserError("the answer after the purchase is the one from before it")
    console.print("The next answer knows of it.", highlight=False)


def _titles(items: list[dict[str, Any]]) -> str:
    return "\n".join(map(_scored_title, items))


def _scored_title(item: dict[str, Any]) -> str:
    return f"{item['title']} ({item['score']:.2f})"
