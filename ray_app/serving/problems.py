"""Errors as RFC 9457 problem details: a title, a sentence, and for wrong fields one entry each."""

from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ray_app.serving.schemas import Problem

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20


class ProblemError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def problem(
    status: int, detail: str, request_id: str, errors: list[dict[str, str]], headers: dict[str, str]
) -> Response:
    """The response."""
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=detail, request_id=request_id, errors=errors)
    return Response(body.model_dump_json(), status, headers, MEDIA_TYPE)


async def on_problem(request: Request, error: Exception) -> Response:
    """Handler of `ProblemError`."""
    assert isinstance(error, ProblemError)
    return problem(error.status, error.detail, request_id(request), [], error.headers)


async def on_invalid(request: Request, error: Exception) -> Response:
    """Handler of what does not fit a schema; values are not repeated, since they may be anybody's."""
    assert isinstance(error, RequestValidationError)
    faults = [{"field": ".".join(map(str, fault["loc"])), "message": _message(fault)} for fault in error.errors()]
    detail = f"{len(faults)} field{'s do' if len(faults) > 1 else ' does'} not fit the schema"
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, request_id(request), faults[:MAX_ERRORS], {})


async def on_http_error(request: Request, error: Exception) -> Response:
    """Handler of what the router refuses: no such path, no such method, a body that is no JSON."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), request_id(request), [], dict(error.headers or {}))


async def on_fault(request: Request, _: Exception) -> Response:
    """Handler of faults of ours, whose traceback is in the log and not in the answer."""
    detail = "a fault of the service; its log has more under the request's id"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, request_id(request), [], {})


def request_id(request: Request) -> str:
    """As the gate gave it."""
    return str(request.scope.get("request_id", ""))


def _message(fault: Any) -> str:
    return str(fault["msg"]).encode("utf-8", "replace").decode()
