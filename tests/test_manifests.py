"""What Kubernetes and `ray up` are given: checked as strictly as an API server would, without one."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import REPOSITORY

from ray_app.config import parse_config

FOLDER = REPOSITORY / "k8s"
INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}]}


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def strict(schema: Any) -> Any:
    """A CRD's schema as a JSON schema that refuses unknown fields, as strict field validation does."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return INT_OR_STRING
    made = {
        key: strict(part) for key, part in schema.items() if not key.startswith("x-kubernetes-") and key != "default"
    }
    if isinstance(properties := schema.get("properties"), dict):
        made["properties"] = {name: strict(part) for name, part in properties.items()}
        optional = {name for name, part in properties.items() if isinstance(part, dict) and "default" in part}
        made["required"] = [name for name in schema.get("required", []) if name not in optional]
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    return made


@pytest.fixture(scope="module", params=[("pipeline.yaml", "ray.io_rayjobs"), ("service.yaml", "ray.io_rayservices")])
def resource(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A manifest and the strict schema of its kind."""
    name, kind = request.param
    path = REPOSITORY.parent / "shared" / "schemas" / "kuberay-1.7.0" / f"{kind}.yaml"
    if not path.is_file():
        pytest.skip(f"needs KubeRay's definitions in {path.parent}")
    definition = yaml.load(path.read_text(), yaml.CSafeLoader)
    [manifest] = documents(name)
    [version] = [
        found for found in definition["spec"]["versions"] if f"ray.io/{found['name']}" == manifest["apiVersion"]
    ]
    assert manifest["kind"] == definition["spec"]["names"]["kind"]
    return manifest, strict(version["schema"]["openAPIV3Schema"])


def test_ray_resources_fit_their_definitions(resource: tuple[Any, Any]):
    manifest, schema = resource
    jsonschema.validate(manifest, schema)
    spec = manifest["spec"].get("rayClusterSpec") or manifest["spec"]["rayClusterConfig"]
    spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagePulPolicy"] = "Always"
    with pytest.raises(jsonschema.ValidationError, match="imagePulPolicy"):
        jsonschema.validate(manifest, schema)


def test_the_configuration_is_ours_and_where_it_is_looked_for():
    config_map, claim = documents("config.yaml")
    config = parse_config(yaml.safe_load(config_map["data"]["config.yaml"]))
    [job], [service] = documents("pipeline.yaml"), documents("service.yaml")
    command = job["spec"]["entrypoint"].split()
    assert command[0] == "python"
    assert (REPOSITORY / Path(command[1]).relative_to("/app")).is_file()
    assert command[2:] == ["--config", "/config/config.yaml"]
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    mounted = {mount["mountPath"]: mount["name"] for mount in head["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in head["volumes"]}
    assert volumes[mounted[config.serve.state_path]]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert volumes[mounted["/config"]]["configMap"]["name"] == config_map["metadata"]["name"]
    [secret] = documents("secret.example.yaml")
    assert head["containers"][0]["envFrom"][0]["secretRef"]["name"] == secret["metadata"]["name"]
    assert not any(secret["stringData"].values()), "no secret is kept here"


def test_serve_is_told_what_it_understands():
    from ray_app.serving import app
    from ray_app.serving.deploy_file import check

    given = check(yaml.safe_load(documents("service.yaml")[0]["spec"]["serveConfigV2"]))
    for application in given["applications"]:
        module, _, name = application["import_path"].partition(":")
        assert module == app.__name__
        assert callable(getattr(app, name))


def test_ray_up_understands_the_cluster():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    with pytest.raises(jsonschema.ValidationError, match="max_wrokers"):
        validate_config(prepare_config(config | {"max_wrokers": 1}))
    for path in config["file_mounts"].values():
        assert (REPOSITORY / path).is_file()
