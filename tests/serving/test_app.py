"""The service on Ray Serve: it answers, survives the loss of its replica, and is refused where it cannot be."""

import os
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import grpc
import pytest
import yaml
from google.protobuf.json_format import MessageToDict
from s3_server import free_ports

from ray_app.config import Config, apply_overrides
from ray_app.errors import ConfigError
from ray_app.registry import Registry, Version
from ray_app.serving.client import Client
from ray_app.serving.rpc import recommend_pb2 as messages
from ray_app.serving.rpc.servicer import METHOD, SERVICE
from ray_app.storage import Storage, join

pytestmark = pytest.mark.cluster


def test_a_killed_replica_loses_nothing(
    ray_cluster: None, config: Config, versions: dict[str, Version], tmp_path: Path
):
    import ray
    from ray import serve

    from ray_app.serving.app import build_app, grpc_options
    from ray_app.serving.store import NAMESPACE

    [port, grpc_port], storage = free_ports(2), Storage.from_config(config.storage)
    registry = Registry(storage, config.name)
    registry.move(*registry.production(), versions["hybrid"].name, "promoted", "test")
    settings = ["serve.poll_s=0.2", "serve.log_requests=false", f"serve.grpc_port={grpc_port}"]
    ours = apply_overrides(config, [f"serve.state_path={tmp_path}", *settings, "serve.require_keys=false"])
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port}, grpc_options=grpc_options(ours.serve))
        serve.run(build_app(ours), name="test")
        client = Client(f"http://127.0.0.1:{port}", attempts=40)
        before = client.recommend("u3")
        assert before["version"] == versions["hybrid"].name
        assert called(grpc_port, {"user_id": "u3"}) == before, "gRPC gives the answer of HTTP"
        with pytest.raises(grpc.RpcError) as refused:
            called(grpc_port, {"user_id": "u3", "k": 0})
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert [ids_of_answer(port, given) for given in (None, "a.b-1")] == [[ANY], ["a.b-1"]]
        assert ids_of_answer(port, "no id")[0] not in ("", "no id")
        assert client.post_events([{"user_id": "u3", "item_id": 120}])["accepted"] == 1
        [actor] = [actor for actor in ray.util.list_named_actors(all_namespaces=True) if "recommender" in actor["name"]]
        handle = ray.get_actor(**actor)
        os.kill(ray.get(handle.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
        deadline = time.monotonic() + 180
        after = client.recommend("u3")  # sent again until the next replica is there
        assert time.monotonic() < deadline
        newest = client.call("GET", "/v1/users/u3/history?k=1")["items"][0]["item_id"]
        assert newest == 120
        assert after["items"] != before["items"]
        registry.move(*registry.production(), versions["one"].name, "promoted", "test")
        while client.recommend("u3")["version"] != versions["one"].name:
            assert time.monotonic() < deadline
    finally:
        storage.delete_tree(join(storage.root(config.name), "models", "production.json"))
        serve.shutdown()
        ray.kill(ray.get_actor(f"events-{config.name}", NAMESPACE))


def ids_of_answer(port: int, given: str | None) -> list[str]:
    """All headers by which an answer names its request."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/healthz", headers={"x-request-id": given} if given else {})
    with urllib.request.urlopen(asked, timeout=60) as reply:
        found: list[str] = reply.headers.get_all("x-request-id")
    return found


def called(port: int, fields: dict[str, Any]) -> Any:
    """What `Recommend` answers, as HTTP would write it."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(
            f"/{SERVICE}/{METHOD}",
            messages.RecommendRequest.SerializeToString,
            messages.RecommendAnswer.FromString,
        )
        reply = method(messages.RecommendRequest(**fields), timeout=60)
    answer = MessageToDict(reply, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    empty = dict.fromkeys(("brand", "category", "price", "image"))
    for item in answer["items"]:
        reason = {"item_id": None, **item["reason"]}
        reason["item_id"] = reason["item_id"] and int(reason["item_id"])
        item |= {**empty, **item, "item_id": int(item["item_id"]), "reason": reason}
    return answer


def test_an_application_from_a_file(config: Config, tmp_path: Path):
    """What a Serve config file names is built from our own configuration, whose faults are told."""
    from ray_app.serving.app import from_file

    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump({"name": "shop", "serve": {"host": "0.0.0.0", "require_keys": False}}))
    assert from_file({"config": str(path), "overrides": ["serve.num_replicas=2"]}) is not None
    with pytest.raises(ConfigError, match="args: unknown"):
        from_file({"config": str(path), "overides": []})
    with pytest.raises(ConfigError, match="is not loopback"):
        from_file({"config": str(path), "overrides": ["serve.require_keys=null"]})
