"""Calls over gRPC are refused as requests over HTTP are; that they are answered, test_app.py knows."""

import asyncio

import grpc
import pytest

from ray_app.config import parse_config
from ray_app.errors import ConfigError
from ray_app.serving.keys import Keys, new_key, read_keys
from ray_app.serving.rpc import recommend_pb2 as messages
from ray_app.serving.rpc.servicer import RefusedError, recommend
from tests.serving.test_api import Start, production, start

__all__ = ["production", "start"]


class Call:
    """The context of a call, as Ray Serve hands it on."""

    def __init__(self, **sent: str) -> None:
        self.sent = sent
        self.code: grpc.StatusCode | None = None
        self.details = ""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return list(self.sent.items())

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


def test_keys_and_fields_are_looked_at(start: Start):
    key, line = new_key("web")
    site = start(Keys.parse(line, "keys"))
    wrong = messages.RecommendRequest(user_id="u3", k=0, boost=[messages.Boost(weight=float("nan"))])
    for call, code, details in (
        (Call(), grpc.StatusCode.UNAUTHENTICATED, "an API key is needed"),
        (Call(authorization="Bearer x"), grpc.StatusCode.UNAUTHENTICATED, "the API key is not known"),
        (
            Call(authorization=f"Bearer {key}"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "2 fields do not fit the schema (body.k",
        ),
    ):
        with pytest.raises(RefusedError):
            asyncio.run(recommend(site.app, wrong, call))
        assert call.code == code
        assert call.details.startswith(details)


def test_with_grpc_keys_are_asked_for_also_on_loopback():
    """Ray Serve listens for it on all addresses."""
    settings = parse_config({"serve": {"grpc_port": 9000}}).serve
    with pytest.raises(ConfigError, match=r"serve\.grpc_port: 9000 is not loopback, so API keys are needed"):
        read_keys(settings, {})
