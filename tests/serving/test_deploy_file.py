"""The file for `serve deploy`: built from a configuration, and checked beyond what Ray's schema checks."""

from typing import Any

import pytest
import yaml

from ray_app.config import parse_config
from ray_app.errors import ConfigError
from ray_app.serving.app import from_file
from ray_app.serving.deploy_file import check, deploy_file


def file(**changes: Any) -> dict[str, Any]:
    return {"applications": [{"import_path": "a:b"}], **changes}


def test_a_file_is_built_and_builds_the_application(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump({"name": "shop", "serve": {"port": 8123, "grpc_port": 9123}}))
    config = parse_config(yaml.safe_load(path.read_text()))
    built = yaml.safe_load(yaml.safe_dump(deploy_file(config, str(path), ["serve.require_keys=false"])))
    assert built["http_options"] == {"host": "127.0.0.1", "port": 8123}
    assert built["grpc_options"]["port"] == 9123
    [application] = built["applications"]
    assert application["import_path"] == "ray_app.serving.app:from_file"
    assert from_file(application["args"]) is not None


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (file(typo=1), "typo"),
        (file(http_options={"hosst": "::"}), "http_options.hosst"),
        (file(grpc_options={"prt": 1}), "grpc_options.prt"),
        (file(applications=[{"import_path": "a:b", "rote_prefix": "/"}]), "applications.0.rote_prefix"),
        (
            file(applications=[{"import_path": "a:b", "deployments": [{"name": "x", "num_replica": 2}]}]),
            "applications.0.deployments.0.num_replica",
        ),
    ],
)
def test_an_unknown_key_is_refused_wherever_it_stands(given: dict[str, Any], key: str):
    """Ray's own schema accepts each of these."""
    with pytest.raises(ConfigError, match=f"^{key}: Ray Serve knows no such key$"):
        check(given)


def test_what_ray_refuses_is_refused():
    with pytest.raises(ConfigError, match="num_replicas"):
        check(file(applications=[{"import_path": "a:b", "deployments": [{"name": "x", "num_replicas": -1}]}]))
