"""What can be asked over HTTP: each route is a question to the `Service`."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from ray_app.serving.customers import SECOND_US
from ray_app.serving.events import Change, NewRow
from ray_app.serving.predictor import Predictor
from ray_app.serving.problems import ProblemError
from ray_app.serving.schemas import (
    MAX_K,
    Availability,
    BatchAnswer,
    BatchRequest,
    EventsAnswer,
    EventsRequest,
    Filters,
    HistoryAnswer,
    HistoryItem,
    Item,
    ItemBody,
    ItemsAnswer,
    Label,
    Lately,
    Model,
    ModelsAnswer,
    NewEvent,
    RecommendAnswer,
    RecommendRequest,
    Scored,
    Trial,
)
from ray_app.serving.service import Service
from ray_app.serving.shortcut import Shortcut

AHEAD_US = 300 * SECOND_US
"""Clocks may differ by so much; what lies further ahead is a mistake."""
READY_S = 2.0
router = APIRouter()
often = APIRouter(route_class=Shortcut)
"""What is asked the most."""


async def service_of(request: Request) -> Service:
    """The service of the application that was asked; a plain function would be called in a thread each time."""
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(service_of)]
K = Annotated[int, Query(ge=1, le=MAX_K)]
PathId = Annotated[str, Path(min_length=1, max_length=512)]


@often.post("/v1/recommend", response_model=RecommendAnswer)
async def recommend(body: RecommendRequest, service: Served) -> Response:
    """The best items for a user, a history, or both; without either what is popular."""
    return _json(await service.recommend(body))


@router.post("/v1/recommend:batch", response_model=BatchAnswer)
async def recommend_batch(body: BatchRequest, service: Served) -> Response:
    """Many answers at once; others' single requests go on in between."""
    answers: list[RecommendAnswer] = []
    size = service.settings.max_batch
    for start in range(0, len(body.requests), size):
        answers += await asyncio.gather(*map(service.recommend, body.requests[start : start + size]))
    return _json(BatchAnswer.model_construct(answers=answers))


@router.get("/v1/items/{item_id:path}/similar", response_model=ItemsAnswer)
async def similar(item_id: PathId, service: Served, k: K = 10) -> Response:
    """Items that are alike, in stock."""
    return await _list(service, lambda predictor: predictor.similar(item_id, k))


@router.get("/v1/items/{item_id:path}/bought-together", response_model=ItemsAnswer)
async def bought_together(item_id: PathId, service: Served, k: K = 10) -> Response:
    """Items of the same orders, in stock; as many as there are."""
    return await _list(service, lambda predictor: predictor.bought_together(item_id, k))


@router.get("/v1/popular", response_model=ItemsAnswer)
async def popular(service: Served, k: K = 10, category: Annotated[Label | None, Query()] = None) -> Response:
    """What was bought most in the last week of the log."""
    filters = Filters(category=None if category is None else [category])
    return await _list(service, lambda predictor: predictor.popular(k, filters))


@router.get("/v1/users", response_model=list[str])
async def users(service: Served, k: K = 20) -> Response:
    """Ids of some users of the log, to look around with."""
    found = await service.ask(lambda predictor: predictor.customers.first(k))
    return Response(json.dumps(found), media_type="application/json")


@router.get("/v1/users/{user_id:path}/history", response_model=HistoryAnswer)
async def history(user_id: PathId, service: Served, k: K = 50) -> Response:
    """What is known of a user, events of a moment ago included."""
    state = await service.store.read([user_id], 0)

    def answer(predictor: Predictor) -> HistoryAnswer:
        past = predictor.past(user_id, state.events[0])
        clock = predictor.customers.clock
        newest = zip(past.items[::-1][:k].tolist(), past.times[::-1][:k].tolist(), strict=True)
        items = [predictor.catalog.describe_as(HistoryItem, item, timestamp=_when(us, clock)) for item, us in newest]
        return HistoryAnswer.model_construct(user_known=past.known or bool(state.events[0]), items=items)

    return _json(await service.ask(answer))


@router.post("/v1/events", response_model=EventsAnswer)
async def events(body: EventsRequest, service: Served, request: Request) -> Response:
    """Keep what users did; the next answer knows it. When this has answered, it is on disk."""
    predictor = service.version().predictor
    now = time.time_ns() // 1000
    rows = [_row(place, event, now, predictor) for place, event in enumerate(body.events)]
    accepted = await service.store.append(rows)
    request.app.state.meters.events.inc(accepted)
    unknown = {str(event.item_id): event.item_id for event in body.events if not predictor.catalog.find(event.item_id)}
    answer = EventsAnswer(accepted=accepted, duplicates=len(rows) - accepted, unknown_items=list(unknown.values()))
    return _json(answer)


@router.put("/v1/items/{item_id:path}/availability", response_model=Item)
async def set_availability(item_id: PathId, body: Availability, service: Served) -> Response:
    """What cannot be bought now is not recommended now."""
    _existing(service, item_id)
    await service.store.change([Change(item_id, "available", "true" if body.available else "false")])
    return await _described(service, item_id)


@router.put("/v1/items/{item_id:path}", response_model=Item)
async def put_item(item_id: PathId, body: ItemBody, service: Served) -> Response:
    """Describe an item; a new one is recommended from now on, by its content."""
    try:
        own = str(service.version().predictor.catalog.own(item_id))
    except ValueError as error:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
    await service.store.change([Change(own, "item", body.model_dump_json())])
    return await _described(service, own)


@router.get("/v1/models", response_model=ModelsAnswer)
async def models(service: Served) -> Response:
    """All registered versions, which of them answer, and how they do in the replica that was asked."""
    versions = service.versions
    found = [
        Model(
            version=version.name,
            registered_at=version.registered_at,
            ndcg_at_10=version.summary[version.main],
            in_production=version.name == versions.production,
            loaded=version.name in versions.loaded,
            trial=_trial(service, version.name),
            lately=_lately(service, version.name),
        )
        for version in await service.registered()
    ]
    return _json(ModelsAnswer(models=found, refused=versions.refused))


@router.get("/healthz", response_model=dict[str, str])
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=dict[str, str])
async def readyz(service: Served) -> dict[str, str]:
    """A version is loaded, and whoever keeps later events answers."""
    try:
        await service.ready(READY_S)
    except TimeoutError:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "events cannot be read", Retry_After="1") from None
    return {"status": "ready", "version": service.version().predictor.version}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Counters of this replica for Prometheus."""
    return Response(request.app.state.meters.text(), media_type="text/plain; version=0.0.4")


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


async def _list(service: Service, question: Callable[[Predictor], list[Scored]]) -> Response:
    def answer(predictor: Predictor) -> ItemsAnswer:
        return ItemsAnswer.model_construct(version=predictor.version, items=question(predictor))

    try:
        return _json(await service.ask(answer))
    except KeyError:
        raise _no_item() from None


async def _described(service: Service, item_id: str) -> Response:
    return _json(await service.ask(lambda predictor: predictor.catalog.describe(predictor.catalog.find(item_id))))


def _existing(service: Service, item_id: str) -> None:
    if not service.version().predictor.catalog.find(item_id):
        raise _no_item()


def _no_item() -> ProblemError:
    return ProblemError(HTTPStatus.NOT_FOUND, "no item of the catalogue has this id")


def _trial(service: Service, version: str) -> Trial | None:
    move, _ = service.versions.trial or (None, None)
    if move is None or move.version != version or move.percent is None:
        return None
    return Trial(kind="canary" if move.kind == "canary" else "shadow", percent=move.percent)


def _lately(service: Service, version: str) -> Lately | None:
    if (loaded := service.versions.loaded.get(version)) is None:
        return None
    record = loaded.record
    return Lately(
        requests=record.requests, error_rate=record.error_rate, p99_s=record.p99_s, overlap_at_k=record.overlap
    )


def _row(place: int, event: NewEvent, now: int, predictor: Predictor) -> NewRow:
    """The event as it is kept.

    Raises:
        ProblemError: its type is not known, or it has not happened yet.
    """
    us = now if event.timestamp is None else round(event.timestamp.timestamp() * SECOND_US)
    wrong, types = f"events.{place}", predictor.event_types
    if us > now + AHEAD_US:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{wrong}.timestamp lies in the future")
    if types is not None and event.event_type not in (None, *types):
        known = ", ".join(sorted(types))
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{wrong}.event_type: the log has {known}")
    return NewRow(str(event.user_id), str(event.item_id), us, event.event_type, event.event_id)


def _when(us: int, clock: bool) -> datetime | None:
    return datetime.fromtimestamp(us / SECOND_US, UTC) if clock else None
