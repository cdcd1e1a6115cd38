"""The page in a real browser: what a person sees, clicks and types."""

import json
from collections.abc import Iterator

import pytest
from browser import Browser, browser
from http_service import Site

from ray_app.config import Config
from ray_app.registry import Registry
from ray_app.storage import Storage
from tests.serving.test_api import Start, production, start

__all__ = ["production", "start"]
TITLES = "[...document.querySelectorAll('#columns .words b')].map((title) => title.textContent)"
TAB, ENTER, ESCAPE = "\ue004", "\ue007", "\ue00c"


@pytest.fixture
def desktop() -> Iterator[Browser]:
    with browser(1280, 1000) as found:
        yield found


def titles(site: Site, **fields: object) -> list[str]:
    return [item["title"] for item in site.recommend(k=12, **fields)["items"]]


def test_a_person_looks_around_and_buys(start: Start, desktop: Browser):
    site = start()
    desktop.open(f"http://127.0.0.1:{site.port}/#u3")
    desktop.wait_for(f"{TITLES}.length === 12")
    assert desktop.run(f"return {TITLES}") == titles(site, user_id="u3")
    newest = site.call("GET", "/v1/users/u3/history").json["items"][0]["title"]
    assert desktop.run("return document.querySelector('#bought b').textContent") == newest
    bought = desktop.run(f"return {TITLES}[11]")
    desktop.click("#columns li:nth-child(12) .buy")
    desktop.wait_for(f"document.querySelector('#status').textContent.startsWith({json.dumps(bought)})")
    assert desktop.run("return document.querySelector('#bought b').textContent") == bought
    assert desktop.run(f"return {TITLES}") == titles(site, user_id="u3")
    desktop.click("#columns li:nth-child(1) .open")
    desktop.wait_for("document.querySelector('dialog').open")
    similar = [item["title"] for item in site.call("GET", f"/v1/items/{first_id(site)}/similar?k=5").json["items"]]
    shown = desktop.run("return [...document.querySelectorAll('#similar b')].map((title) => title.textContent)")
    assert shown == similar
    desktop.keys(ESCAPE)
    desktop.wait_for("!document.querySelector('dialog').open")


def first_id(site: Site) -> int:
    return site.recommend(user_id="u3", k=1)["items"][0]["item_id"]


def test_it_is_used_by_keyboard_alone(start: Start, desktop: Browser):
    site = start()
    desktop.open(f"http://127.0.0.1:{site.port}/#u3")
    desktop.wait_for(f"{TITLES}.length === 12")
    desktop.run("document.getElementById('user').select()")
    desktop.keys("nobody" + ENTER)
    desktop.wait_for("document.querySelector('h3').textContent.includes('nothing is known')")
    assert desktop.run(f"return {TITLES}") == titles(site)
    seen = set()
    for _ in range(40):
        desktop.keys(TAB)
        seen.add(desktop.run("return document.activeElement.id || document.activeElement.className"))
    assert {"next", "bought", "version", "other", "category", "unseen", "open", "buy"} <= seen


def test_two_models_side_by_side(start: Start, production, versions, desktop: Browser):
    production("two")
    production("one")
    site, two = start(), versions["two"].name
    desktop.open(f"http://127.0.0.1:{site.port}/#u3")
    desktop.wait_for(f"{TITLES}.length === 12")
    desktop.run(
        "document.getElementById('other').value = arguments[0];"
        "document.getElementById('other').dispatchEvent(new Event('change'))",
        two,
    )
    desktop.wait_for(f"{TITLES}.length === 24")
    ours, theirs = titles(site, user_id="u3", version=versions["one"].name), titles(site, user_id="u3", version=two)
    assert desktop.run(f"return {TITLES}") == [*ours, *theirs]
    shared = len(set(ours) & set(theirs))
    assert 0 < shared < 12
    headings = desktop.run("return [...document.querySelectorAll('#columns h3')].map((title) => title.textContent)")
    assert headings[0].endswith(f"(in production) · {shared} of 12 in both")
    assert desktop.run("return document.querySelectorAll('.card.alone').length") == 2 * (12 - shared)


def test_what_is_tried_stands_beside_what_is_in_production(
    start: Start, production, versions, config: Config, desktop: Browser
):
    production("one")
    registry = Registry(Storage.from_config(config.storage), config.name)
    registry.move(*registry.production(), versions["two"].name, "canary", "test", 10)
    site = start()
    desktop.open(f"http://127.0.0.1:{site.port}/#u3")
    desktop.wait_for(f"{TITLES}.length === 24")
    second = desktop.run("return document.querySelectorAll('#columns h3')[1].textContent")
    assert second.startswith(f"Model {versions['two'].name[:8]} (canary, 10%) · ")


def test_on_a_phone_nothing_is_wider_than_the_screen(start: Start):
    site = start()
    site.call("PUT", "/v1/items/104", {"title": "<script>alert(1)</script>" + "W" * 200, "category": "x" * 200})
    site.call("POST", "/v1/events", {"events": [{"user_id": "u3", "item_id": 104}]})
    with browser(500, 900) as phone:
        phone.open(f"http://127.0.0.1:{site.port}/#u3")
        phone.wait_for(f"{TITLES}.length === 12")
        assert phone.run("return document.documentElement.scrollWidth <= window.innerWidth")
        assert phone.run("return document.querySelector('#bought b').textContent").startswith("<script>")
        heights = "[...document.querySelectorAll('main button, main select')].map((x) => x.offsetHeight)"
        assert min(filter(None, phone.run(f"return {heights}"))) >= 32, "large enough for a thumb"
