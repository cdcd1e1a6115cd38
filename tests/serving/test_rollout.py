"""Canary, shadow and the way back, over a real server with real models; one is made to fail or to be slow."""

import re
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from http_service import Site

from ray_app.config import Config
from ray_app.production import Production
from ray_app.registry import Registry, Version
from ray_app.serving.predictor import Predictor
from ray_app.storage import Storage
from tests.serving.test_api import Start, ids, production, start

__all__ = ["production", "start"]
USERS = [f"u{n}" for n in range(60)]
Versions = dict[str, Version]


@pytest.fixture
def registry(config: Config, production: Callable[[str], None]) -> Registry:
    """With version `one` in production."""
    production("one")
    return Registry(Storage.from_config(config.storage), config.name)


@pytest.fixture
def try_two(registry: Registry, versions: Versions) -> Callable[[str, float], None]:
    return lambda kind, percent: (
        registry.move(*registry.production(), versions["two"].name, kind, "test", percent) and None
    )


@pytest.fixture
def faults(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> list[Exception | float]:
    """What happens to whoever asks version `two` after it was warmed up: the exception, or so many seconds."""
    found: list[Exception | float] = []
    recommend = Predictor.recommend

    def struck(self: Predictor, requests: Any, later: Any) -> Any:
        if found and self.version == versions["two"].name:
            if isinstance(found[0], Exception):
                raise found[0]
            time.sleep(found[0])
        return recommend(self, requests, later)

    monkeypatch.setattr(Predictor, "recommend", struck)
    return found


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def model(site: Site, version: Version) -> Any:
    models = site.call("GET", "/v1/models").json["models"]
    return next(each for each in models if each["version"] == version.name)


def answered_by(site: Site, users: list[str] = USERS) -> list[str]:
    return [site.recommend(user_id=user)["version"] for user in users]


def test_a_canary_answers_its_users_and_nobody_else(start: Start, try_two, registry: Registry, versions: Versions):
    site, (one, two) = start(), (versions["one"].name, versions["two"].name)
    try_two("canary", 30)
    until(lambda: model(site, versions["two"])["trial"] == {"kind": "canary", "percent": 30})
    first = answered_by(site)
    assert 6 <= first.count(two) <= 30, "18 of 60 were expected"
    assert answered_by(site) == first, "each user stays with one version"
    assert site.recommend(history=[101])["version"] == one, "who has no id stays with the one in production"
    assert site.recommend(user_id=USERS[first.index(two)], version=one)["version"] == one
    try_two("canary", 80)
    until(lambda: model(site, versions["two"])["trial"]["percent"] == 80)
    more = answered_by(site)
    assert all(after == two for before, after in zip(first, more, strict=True) if before == two)
    assert more.count(two) > first.count(two)
    registry.move(*registry.production(), two, "promoted", "test")
    until(lambda: model(site, versions["two"])["in_production"])
    assert set(answered_by(site)) == {two}


def test_a_shadow_is_compared_and_never_seen(start: Start, try_two, versions: Versions):
    site = start()
    try_two("shadow", 100)
    until(lambda: model(site, versions["two"])["trial"])
    assert set(answered_by(site)) == {versions["one"].name}
    until(lambda: model(site, versions["two"])["lately"]["requests"] == len(USERS))
    shared = []
    for user in USERS:
        one, two = (ids(site.recommend(user_id=user, version=versions[name].name)) for name in ("one", "two"))
        shared.append(len(set(one) & set(two)) / 10)
    lately = model(site, versions["two"])["lately"]
    assert lately["overlap_at_k"] == pytest.approx(sum(shared) / len(shared))
    assert 0 < lately["overlap_at_k"] < 1
    assert model(site, versions["one"])["lately"]["overlap_at_k"] is None
    text = site.call("GET", "/metrics").body.decode()
    total = float(re.search(r"retail_shadow_overlap_sum\S* (\S+)", text)[1])  # type: ignore[index]
    assert total == pytest.approx(sum(shared))


def test_a_canary_that_fails_is_ended_and_no_request_with_it(
    start: Start, try_two, registry: Registry, versions: Versions, faults: list[Exception | float]
):
    site = start(rollback={"min_requests": 5, "error_rate": 0.2})
    try_two("canary", 100)
    until(lambda: model(site, versions["two"])["trial"])
    faults.append(ValueError("broken"))
    assert set(answered_by(site)) == {versions["one"].name}, "another version answers in its place"
    present = until(lambda: (found := registry.production()[0]).trial is None and found)
    assert (present.version, present.moves[-1].kind) == (versions["one"].name, "ended")
    assert re.fullmatch(r"by the service: 100\.0% of \d+ answers failed, 20\.0% are allowed", present.moves[-1].why)
    until(lambda: model(site, versions["two"])["trial"] is None)
    assert "retail_rollbacks_total 1.0" in site.call("GET", "/metrics").body.decode()


def test_a_promoted_version_that_fails_or_is_slow_is_rolled_back(
    start: Start, registry: Registry, versions: Versions, faults: list[Exception | float]
):
    site = start(rollback={"min_requests": 5, "p99_s": 0.2})
    one, two = versions["one"].name, versions["two"].name
    for fault, why in ((ValueError("broken"), "answers failed"), (0.3, "p99 of")):
        faults.clear()
        registry.move(*registry.production(), two, "promoted", "test")
        until(lambda: site.recommend(user_id="u1")["version"] == two)
        faults.append(fault)
        given = answered_by(site, USERS[:6])
        assert given[0] == (one if isinstance(fault, Exception) else two), "who fails is stood in for, who is slow not"
        present = until(lambda: (found := registry.production()[0]).version == one and found)
        assert present.moves[-1].kind == "rolled back"
        assert present.moves[-1].why.startswith(f"from {two}: by the service: ")
        assert why in present.moves[-1].why
        until(lambda: site.recommend(user_id="u1")["version"] == one)


def test_nothing_is_taken_back_where_that_is_switched_off(
    start: Start, try_two, registry: Registry, versions: Versions, faults: list[Exception | float]
):
    site = start(rollback=None)
    try_two("canary", 100)
    until(lambda: model(site, versions["two"])["trial"])
    faults.append(ValueError("broken"))
    answered_by(site)
    assert model(site, versions["two"])["lately"]["error_rate"] == 1
    time.sleep(0.3)  # six looks at production.json
    assert registry.production()[0].trial is not None


def test_a_slow_canary_is_not_waited_for(start: Start, try_two, versions: Versions, faults: list[Exception | float]):
    site = start(timeout_s=4)
    try_two("canary", 100)
    until(lambda: model(site, versions["two"])["trial"])
    faults.append(3.0)
    assert site.recommend(user_id="u1")["version"] == versions["one"].name


def test_what_is_too_slow_alone_and_what_waited_too_long(
    start: Start, production, registry: Registry, versions: Versions, faults: list[Exception | float]
):
    """A request that takes too long is a 504; where others wait, the load is to blame, and whoever asks is told so."""
    production("two")
    site = start(timeout_s=0.4, max_batch=1, rollback=None)
    faults.append(0.6)
    assert site.call("POST", "/v1/recommend", {"user_id": "u1"}).status == 504
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda user: site.call("POST", "/v1/recommend", {"user_id": user}), USERS[:6]))
    assert 503 in {reply.status for reply in replies} <= {503, 504}
    assert all(reply.headers["retry-after"] == "1" for reply in replies)


def test_two_versions_at_most_are_held(start: Start, registry: Registry, versions: Versions, monkeypatch):
    alive: list[weakref.ref[Predictor]] = []
    most, load = [0], Predictor.load.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Predictor], *given: Any) -> Predictor:
        alive.append(weakref.ref(predictor := load(cls, *given)))
        most.append(sum(ref() is not None for ref in alive))
        return predictor

    monkeypatch.setattr(Predictor, "load", classmethod(counted))
    site = start()
    moves = [("two", "promoted"), ("hybrid", "shadow"), ("hybrid", "promoted"), ("one", "canary"), ("two", "promoted")]
    for name, kind in moves:
        percent = None if kind == "promoted" else 50.0
        registry.move(*registry.production(), versions[name].name, kind, "test", percent)
        until(lambda name=name: (found := model(site, versions[name]))["in_production"] or found["trial"])
        site.recommend(user_id="u1")
    until(lambda: model(site, versions["hybrid"])["loaded"])
    assert max(most) == 2
    assert len(alive) == 5, "what was on trial is promoted without being loaded again"


def test_a_user_stays_where_the_hash_says():
    """The shares are as wide as they say, and another version has other users."""
    trial = {"at": "2026-01-01T00:00:00Z", "kind": "canary", "why": "", "percent": 10}
    a, b = (Production.model_validate({"moves": [{"version": name, **trial}]}).trial for name in ("a", "b"))
    assert a is not None
    assert b is not None
    chosen = [{user for user in range(20_000) if move.tries(user)} for move in (a, b)]
    assert [len(users) for users in chosen] == pytest.approx([2000, 2000], rel=0.1)
    assert len(chosen[0] & chosen[1]) == pytest.approx(200, rel=0.3)
    assert a.tries("12") == a.tries(12)
    assert not a.tries(None)
