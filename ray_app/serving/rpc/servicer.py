"""Calls over gRPC pass the same gate and the same routes as requests over HTTP, in process."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from starlette.types import ASGIApp, Message, Scope

from ray_app.serving.rpc import recommend_pb2 as messages

SERVICE, METHOD = "retail.v1.Recommender", "Recommend"
PATH = "/v1/recommend"
CODES = {
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class Context(Protocol):
    """What is used of a call's context."""

    def invocation_metadata(self) -> Any:
        """Pairs of names and values that the client sent."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """How the call ended."""

    def set_details(self, details: str) -> None:
        """Why."""


class RefusedError(Exception):
    """The call was refused; its context says how and why."""


def add_to_server(servicer: Any, server: grpc.Server) -> None:
    """What Ray Serve's `grpc_servicer_functions` name."""
    handler = grpc.unary_unary_rpc_method_handler(
        getattr(servicer, METHOD),
        request_deserializer=messages.RecommendRequest.FromString,
        response_serializer=messages.RecommendAnswer.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))


async def recommend(app: ASGIApp, request: Any, context: Context) -> Any:
    """`messages.RecommendAnswer`.

    Raises:
        RefusedError: the application answered with a problem.
    """
    body = json.dumps(MessageToDict(request, preserving_proto_field_name=True)).encode()
    sent = dict(context.invocation_metadata())
    headers = {name: sent[name] for name in ("authorization", "x-request-id") if name in sent}
    status, answer = await _post(app, body, headers | {"content-type": "application/json"})
    if status != HTTPStatus.OK:
        context.set_code(CODES.get(HTTPStatus(status), grpc.StatusCode.INTERNAL))
        faults = "; ".join(f"{fault['field']}: {fault['message']}" for fault in answer["errors"])
        context.set_details(f"{answer['detail']}{f' ({faults})' if faults else ''}")
        raise RefusedError(answer["detail"])
    return ParseDict(_ids_as_text(answer), messages.RecommendAnswer())


async def _post(app: ASGIApp, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
    """Status and body of an answer to a request that never left the process."""
    got: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    said: list[Message] = []

    async def receive() -> Message:
        return got.pop() if got else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        said.append(message)

    scope: Scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"},
        **{"path": PATH, "raw_path": PATH.encode(), "root_path": "", "query_string": b"", "client": None},
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    return said[0]["status"], json.loads(b"".join(message.get("body", b"") for message in said[1:]))


def _ids_as_text(answer: dict[str, Any]) -> dict[str, Any]:
    for each in (*answer["items"], *(item["reason"] for item in answer["items"])):
        if each["item_id"] is not None:
            each["item_id"] = str(each["item_id"])
    return answer | {"unknown_items": [str(item) for item in answer["unknown_items"]]}
