"""The HTTP application. It runs the same in a replica of Ray Serve and in any ASGI server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ray_app.serve_config import ServeConfig
from ray_app.serving import pages, routes
from ray_app.serving.gate import Gate
from ray_app.serving.keys import Keys
from ray_app.serving.meters import Meters
from ray_app.serving.problems import MEDIA_TYPE, ProblemError, on_fault, on_http_error, on_invalid, on_problem
from ray_app.serving.schemas import Problem
from ray_app.serving.service import Service

_REFUSALS = (400, 401, 404, 405, 413, 422, 429, 503, 504)
_PROBLEM = {"model": Problem, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def build_api(
    make: Callable[[Meters], Awaitable[Service]],
    settings: ServeConfig,
    keys: Keys | None,
    *,
    names_answers: bool = True,
) -> FastAPI:
    """The application, whose service is made when the server starts and is warm before the first request.

    Other arguments as of `Gate`.
    """
    meters = Meters()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.service = service = await make(meters)
        await service.start()
        yield
        await service.stop()

    refusals: dict[int | str, dict[str, Any]] = dict.fromkeys(_REFUSALS, _PROBLEM)
    app = FastAPI(
        title="Recommendations",
        version="1",
        description="What to recommend to whom, and why.",
        lifespan=lifespan,
        responses=refusals,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.meters = meters
    app.include_router(routes.often)
    app.include_router(routes.router)
    app.include_router(pages.router)
    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_fault)
    app.add_middleware(Gate, settings=settings, keys=keys, meters=meters, names_answers=names_answers)
    return app
