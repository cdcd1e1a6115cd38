"""The HTTP application over a real server: every route, every kind of bad input, and what the answers promise."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis_server
from http_service import Site, running

from ray_app.config import Config
from ray_app.registry import Registry, Version
from ray_app.serve_config import ServeConfig
from ray_app.serving.api import build_api
from ray_app.serving.keys import Keys, new_key
from ray_app.serving.meters import Meters
from ray_app.serving.redis_store import RedisStore
from ray_app.serving.service import Service
from ray_app.serving.store import LocalStore
from ray_app.storage import Storage, join

Start = Callable[..., Site]


@pytest.fixture
def production(config: Config, versions: dict[str, Version]) -> Iterator[Callable[[str], None]]:
    """Puts a version into production; afterwards nothing is."""
    storage = Storage.from_config(config.storage)
    registry = Registry(storage, config.name)

    def promote(name: str) -> None:
        registry.move(*registry.production(), versions[name].name, "promoted", "test")

    yield promote
    storage.delete_tree(join(storage.root(config.name), "models", "production.json"))


@pytest.fixture
def start(config: Config, production: Callable[[str], None], tmp_path: Path) -> Iterator[Start]:
    """Starts the service on version `one`, or on whatever is in production already."""
    storage = Storage.from_config(config.storage)
    if Registry(storage, config.name).production()[0].version is None:
        production("one")
    with ExitStack() as stack:

        def begin(keys: Keys | None = None, state: str = "state", **settings: Any) -> Site:
            # Long waits, since these tests ask what is answered, and the machine may have other things to do.
            patient = {"poll_s": 0.05, "max_wait_s": 60, "timeout_s": 60}
            serve = ServeConfig.model_validate({**patient, **settings})

            async def make(meters: Meters) -> Service:
                if serve.redis is not None:
                    return Service(storage, config.name, await RedisStore.connect(serve, state, None), serve, meters)
                return Service(storage, config.name, LocalStore(str(tmp_path / state)), serve, meters)

            return stack.enter_context(running(build_api(make, serve, keys)))

        yield begin


def ids(answer: Any) -> list[int]:
    return [item["item_id"] for item in answer["items"]]


def test_recommendations(start: Start, versions: dict[str, Version]):
    site = start()
    reply = site.call("POST", "/v1/recommend", {"user_id": "u3", "k": 4, "history": [101, "nix"]}, x_request_id="a.b-1")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.headers["x-request-id"] == "a.b-1"
    answer = reply.json
    assert (answer["version"], answer["user_known"], answer["unknown_items"]) == (versions["one"].name, True, ["nix"])
    assert len(answer["items"]) == 4
    assert set(answer["items"][0]) == {"item_id", "title", "brand", "category", "price", "image", "score", "reason"}
    assert re.fullmatch(r"[0-9a-f]{32}", site.call("GET", "/healthz", x_request_id="x y").headers["x-request-id"])


def test_the_next_answer_knows_an_event(start: Start):
    site = start()
    before = site.recommend(user_id="u3")
    reply = site.call("POST", "/v1/events", {"events": [{"user_id": "u3", "item_id": 120}] * 2})
    assert reply.json == {"accepted": 1, "duplicates": 1, "unknown_items": []}
    after = site.recommend(user_id="u3")
    assert ids(after) != ids(before)
    newest = site.call("GET", "/v1/users/u3/history?k=2").json
    assert (newest["user_known"], newest["items"][0]["item_id"], len(newest["items"])) == (True, 120, 2)
    assert newest["items"][0]["timestamp"] > newest["items"][1]["timestamp"]


def test_events_outlive_the_service(start: Start):
    events = [{"user_id": "new/ü", "item_id": 110, "event_id": "e"}, {"user_id": "new/ü", "item_id": "later"}]
    first = start()
    assert first.call("POST", "/v1/events", {"events": events}).json["unknown_items"] == ["later"]
    first.call("PUT", "/v1/items/111/availability", {"available": False})
    second = start()
    found = second.call("GET", "/v1/users/new%2F%C3%BC/history").json
    assert (found["user_known"], ids(found)) == (True, [110])
    assert 111 not in ids(second.recommend(k=1000))


def test_services_on_many_nodes_share_one_redis(start: Start, tmp_path: Path):
    with redis_server.running(tmp_path / "redis", *redis_server.DURABLE) as server:
        one, two = (start(redis=server.url) for _ in range(2))
        before = two.recommend(user_id="u3")
        one.call("POST", "/v1/events", {"events": [{"user_id": "u3", "item_id": 120}]})
        one.call("PUT", "/v1/items/7000", {"title": "Tea number 7", "category": "tea"})
        one.call("PUT", "/v1/items/111/availability", {"available": False})
        assert ids(two.recommend(user_id="u3")) != ids(before)
        every = ids(two.recommend(user_id="u3", k=1000))
        assert 7000 in every
        assert 111 not in every
        server.kill()
        away = two.call("POST", "/v1/events", {"events": [{"user_id": "u3", "item_id": 121}]})
        assert (away.status, away.headers["retry-after"]) == (503, "1")
        assert {two.call(*asked).status for asked in (("GET", "/readyz"), ("POST", "/v1/recommend", {}))} == {503}
        assert two.call("GET", "/healthz").status == 200


def test_items_are_added_and_sold_out(start: Start):
    site = start()
    best = site.recommend(user_id="u3")["items"][0]
    body = {name: best[name] for name in ("title", "category", "brand")} | {"image": "https://shop/x.png"}
    put = site.call("PUT", "/v1/items/7000", body)
    assert (put.status, put.json["item_id"], put.json["image"]) == (200, 7000, "https://shop/x.png")
    assert 7000 in ids(site.recommend(user_id="u3", k=1000))
    assert ids(site.call("GET", "/v1/items/7000/similar?k=1").json) == [best["item_id"]]
    assert site.call("PUT", "/v1/items/7000/availability", {"available": False}).status == 200
    assert 7000 not in ids(site.recommend(user_id="u3", k=1000))
    assert site.call("PUT", "/v1/items/7000", body | {"price": 3}).json["price"] == 3
    assert 7000 not in ids(start().recommend(k=1000)), "sold out it stays, also for who hears of it later"


def test_lists(start: Start):
    site = start()
    popular = site.call("GET", "/v1/popular?k=3").json
    assert len(popular["items"]) == 3
    tea = site.call("GET", "/v1/popular?k=3&category=tea").json["items"]
    assert {item["category"] for item in tea} == {"tea"}
    assert len(site.call("GET", "/v1/items/104/similar").json["items"]) == 10
    assert 0 < len(site.call("GET", "/v1/items/104/bought-together?k=5").json["items"]) <= 5
    assert site.call("GET", "/v1/users?k=2").json == ["u0", "u2"]


def test_a_batch_gives_what_single_requests_give(start: Start):
    site = start()
    requests = [{"user_id": f"u{n}", "k": 3} for n in range(30)]
    answers = site.call("POST", "/v1/recommend:batch", {"requests": requests}).json["answers"]
    assert [ids(answer) for answer in answers] == [ids(site.recommend(**request)) for request in requests]


def test_many_at_once_get_what_each_would_get_alone(start: Start):
    site = start()
    alone = {f"u{n}": ids(site.recommend(user_id=f"u{n}")) for n in range(40)}
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda user: (user, ids(site.recommend(user_id=user))), [*alone] * 3))
    assert all(alone[user] == items for user, items in found)
    text = site.call("GET", "/metrics").body.decode()
    passes = float(re.search(r"retail_batch_requests_count (\S+)", text)[1])  # type: ignore[index]
    asked = float(re.search(r"retail_batch_requests_sum (\S+)", text)[1])  # type: ignore[index]
    assert asked == 160
    assert passes < asked, "who waited was answered together"


WRONG: list[tuple[str, str, Any, int]] = [
    ("POST", "/v1/recommend", {"k": 0}, 422),
    ("POST", "/v1/recommend", {"k": -1}, 422),
    ("POST", "/v1/recommend", {"k": 10**9}, 422),
    ("POST", "/v1/recommend", {"k": "5"}, 422),
    ("POST", "/v1/recommend", {"k": 10**30}, 422),
    ("POST", "/v1/recommend", {"user": "u1"}, 422),
    ("POST", "/v1/recommend", {"user_id": ""}, 422),
    ("POST", "/v1/recommend", {"user_id": True}, 422),
    ("POST", "/v1/recommend", {"user_id": "x" * 513}, 422),
    ("POST", "/v1/recommend", {"boost": [{"weight": False}]}, 422),
    ("POST", "/v1/recommend", {"history": [{"item_id": 1, "timestamp": 0}]}, 422),
    ("POST", "/v1/recommend", {"history": [{"item_id": 1, "timestamp": "0"}]}, 422),
    ("POST", "/v1/recommend", b'{"user_id": "\\ud800"}', 422),
    ("POST", "/v1/recommend", {"history": [1.5]}, 422),
    ("POST", "/v1/recommend", {"history": [1] * 10_001}, 422),
    ("POST", "/v1/recommend", {"history": [{"item_id": 1, "timestamp": "2020-01-01T00:00:00"}]}, 422),
    ("POST", "/v1/recommend", {"filters": {"price_min": -1}}, 422),
    ("POST", "/v1/recommend", b'{"filters": {"price_min": NaN}}', 422),
    ("POST", "/v1/recommend", {"diversity": 2}, 422),
    ("POST", "/v1/recommend", {"version": "none"}, 404),
    ("POST", "/v1/recommend", b"{", 422),
    ("POST", "/v1/recommend", b"\xff\xfe", 422),
    ("POST", "/v1/recommend", b"[" * 100_000, 400),
    ("POST", "/v1/recommend", b"[]", 422),
    ("POST", "/v1/recommend:batch", {"requests": []}, 422),
    ("POST", "/v1/recommend:batch", {"requests": [{}] * 1001}, 422),
    ("POST", "/v1/events", {"events": [{"user_id": "u"}]}, 422),
    ("POST", "/v1/events", {"events": [{"user_id": "u", "item_id": 1, "timestamp": "2999-01-01T00:00:00Z"}]}, 422),
    ("POST", "/v1/events", {"events": [{"user_id": "u", "item_id": 1, "event_type": 3}]}, 422),
    ("PUT", "/v1/items/seven", {"title": "t"}, 422),
    ("PUT", "/v1/items/", {"title": "t"}, 422),
    ("PUT", "/v1/items/7", {"title": ""}, 422),
    ("PUT", "/v1/items/7", {"title": "t", "image": "javascript:alert(1)"}, 422),
    ("PUT", "/v1/items/7/availability", {"available": True}, 404),
    ("PUT", "/v1/items/104/availability", {"available": 1}, 422),
    ("GET", "/v1/items/7/similar", None, 404),
    ("GET", "/v1/items/104/similar?k=0", None, 422),
    ("GET", "/v1/items/%00%ff/bought-together", None, 404),
    ("GET", f"/v1/users/{'x' * 600}/history", None, 422),
    ("GET", "/v1/nothing", None, 404),
    ("DELETE", "/v1/recommend", None, 405),
]


@pytest.fixture(scope="module")
def site(config: Config, versions: dict[str, Version], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One service for many questions that change nothing."""
    storage, settings = Storage.from_config(config.storage), ServeConfig()
    registry = Registry(storage, config.name)
    registry.move(*registry.production(), versions["one"].name, "promoted", "test")
    path = str(tmp_path_factory.mktemp("state") / "state")

    async def make(meters: Meters) -> Service:
        return Service(storage, config.name, LocalStore(path), settings, meters)

    with running(build_api(make, settings, None)) as found:
        storage.delete_tree(join(storage.root(config.name), "models", "production.json"))
        yield found


@pytest.mark.parametrize(("method", "path", "body", "status"), WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_bad_input_is_a_problem_in_words(site: Site, method: str, path: str, body: Any, status: int):
    reply = site.call(method, path, body)
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["status"] == status
    assert reply.json["request_id"] == reply.headers["x-request-id"]
    assert reply.json["detail"]


def test_a_fault_in_a_field_is_located_and_not_repeated(site: Site):
    problem = site.call("POST", "/v1/recommend", {"k": 0, "filters": {"price_max": "secret"}}).json
    assert [error["field"] for error in problem["errors"]] == ["body.k", "body.filters.price_max"]
    assert "secret" not in json.dumps(problem)


def test_odd_input_that_is_allowed(site: Site):
    history = [100 + n % 40 for n in range(10_000)]
    assert len(site.recommend(history=history, k=7)["items"]) == 7
    assert site.recommend(filters={"category": ["nothing"]})["items"] == []
    assert ids(site.recommend(filters={"allow": [101, 101, "101"], "deny": [102, 102]})) == [101]
    assert ids(site.recommend(k=3, pin=[101, "101", 102]))[:2] == [101, 102], "each once"
    again = site.call("POST", "/v1/recommend:batch", {"requests": [{"user_id": "u3"}] * 3}).json["answers"]
    assert [ids(answer) for answer in again] == [ids(site.recommend(user_id="u3"))] * 3
    assert site.recommend(user_id=10**40, history=[101.0, -(2**70)], k=2.0)["unknown_items"] == [-(2**70)]
    assert site.recommend(user_id="😀" * 256)["user_known"] is False
    assert len(site.recommend(history=[{"item_id": 101, "timestamp": "2999-01-01T00:00:00Z"}])["items"]) == 10
    found = site.call("GET", "/v1/users/no%20body/history").json
    assert found == {"user_known": False, "items": []}


def test_too_long_bodies_are_refused_before_they_are_read(site: Site):
    """By what the header says, and by what comes where the header says nothing."""
    assert site.call("POST", "/v1/recommend", b" " * 3_000_000).status == 413
    reply = site.call("POST", "/v1/recommend", (b" " * 100_000 for _ in range(1000)))
    assert (reply.status, reply.headers["content-type"]) == (413, "application/problem+json")


def test_the_api_is_described(site: Site):
    described = site.call("GET", "/openapi.json").json
    assert {"/v1/recommend", "/v1/recommend:batch", "/v1/events", "/v1/items/{item_id}", "/readyz"} <= set(
        described["paths"]
    )
    examples = described["components"]["schemas"]["RecommendRequest"]["examples"]
    assert site.call("POST", "/v1/recommend", examples[0]).status == 200


def test_ready_and_counted(site: Site, versions: dict[str, Version]):
    assert site.call("GET", "/readyz").json == {"status": "ready", "version": versions["one"].name}
    site.call("GET", "/v1/users/somebody/history")
    text = site.call("GET", "/metrics").body.decode()
    assert f'retail_version{{version="{versions["one"].name}"}} 1.0' in text
    assert 'route="/v1/users/{user_id:path}/history",status="200"' in text
    assert "somebody" not in text


def test_keys(start: Start):
    key, line = new_key("web")
    site = start(Keys.parse(f"# who may ask\n{line}\n", "keys"))
    assert site.call("POST", "/v1/recommend", {}).status == 401
    assert site.call("POST", "/v1/recommend", {}, authorization="Bearer wrong").json["detail"] == (
        "the API key is not known"
    )
    assert site.call("POST", "/v1/recommend", {}, authorization=f"Bearer {key}").status == 200
    assert site.call("GET", "/metrics").status == 401
    assert site.call("GET", "/readyz").status == 200
    assert key not in line


def test_rate_limit(start: Start):
    site = start(rate_limit=3)
    replies = [site.call("GET", "/v1/popular") for _ in range(6)]
    assert [reply.status for reply in replies][:3] == [200] * 3
    assert replies[-1].status == 429
    assert int(replies[-1].headers["retry-after"]) >= 1
    assert site.call("GET", "/healthz").status == 200


def test_who_finds_too_many_waiting_is_sent_away(start: Start):
    site = start(max_waiting=1, max_batch=1)
    with ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(lambda _: site.call("POST", "/v1/recommend", {"k": 1000}), range(120)))
    assert {reply.status for reply in replies} == {200, 503}
    assert all(reply.headers["retry-after"] == "1" for reply in replies if reply.status == 503)
    assert site.call("POST", "/v1/recommend", {}).status == 200


def test_production_is_followed_without_a_failed_request(
    start: Start, production: Callable[[str], None], versions: dict[str, Version]
):
    site = start()
    one, two = versions["one"].name, versions["two"].name
    seen = [site.recommend(user_id="u3")["version"]]
    production("two")
    while seen[-1] == one:
        seen.append(site.recommend(user_id="u3")["version"])
    assert seen == [one] * (len(seen) - 1) + [two]
    models = {model["version"]: model for model in site.call("GET", "/v1/models").json["models"]}
    assert (models[two]["in_production"], models[two]["loaded"]) == (True, True)
    assert models[one]["loaded"], "for a rollback, and to compare"
    old, new = (site.recommend(user_id="u3", version=name) for name in (one, two))
    assert (old["version"], new["version"]) == (one, two)
    assert ids(old) != ids(new)


def test_a_damaged_version_is_refused_and_the_old_one_keeps_serving(
    start: Start, production: Callable[[str], None], config: Config, versions: dict[str, Version]
):
    site, storage = start(), Storage.from_config(config.storage)
    path = join(versions["two"].uri, "model.safetensors")
    whole = storage.read_bytes(path)
    storage.write_bytes(path, whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    try:
        production("two")
        while not (refused := site.call("GET", "/v1/models").json["refused"]):
            assert site.recommend(user_id="u3")["version"] == versions["one"].name
        assert "its bytes differ" in refused[versions["two"].name]
        assert site.recommend(user_id="u3")["version"] == versions["one"].name
        assert start().recommend()["version"] == versions["one"].name, "a new replica begins with the one before"
    finally:
        storage.write_bytes(path, whole)


def test_a_body_is_read_alike_whatever_its_type_is_called(site: Site):
    """The type as most write it takes the shorter way; others, and what does not fit, go the usual one."""
    body = json.dumps({"user_id": "u3", "k": 3}).encode()
    answers = [
        site.call("POST", "/v1/recommend", body, content_type=kind)
        for kind in ("application/json", "application/json; charset=utf-8", "application/merge-patch+json")
    ]
    assert [answer.status for answer in answers] == [200] * 3
    assert len({answer.body for answer in answers}) == 1
    for kind in ("text/plain", "application/json-lines"):
        assert site.call("POST", "/v1/recommend", body, content_type=kind).status == 422
    refused = [
        (b"{", "body.1"),
        (b'{"k": 0}', "body.k"),
        (b'{"user": 1}', "body.user"),
        (b"[1]", "body"),
        (b"", "body"),
        (b"\xff{}", None),
        (b"[" * 100_000, None),
    ]
    for wrong, field in refused:
        reply = site.call("POST", "/v1/recommend", wrong)
        assert reply.status == (422 if field else 400), reply
        assert reply.headers["content-type"] == "application/problem+json"
        assert [fault["field"] for fault in reply.json["errors"]] == ([field] if field else [])
