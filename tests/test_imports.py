"""Imports point down the list of floors, and importing the package does nothing that anyone could see."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = "ray_app"
FLOORS = (
    (
        *("config", "config_help", "content_config", "data_config", "errors", "evaluate_config", "faults"),
        "picture_config",
        *("schedule", "schema", "serve_config", "train_config", "tune_config", "uri"),
        "yaml_tree",
    ),
    ("storage", "local_files", "s3_errors", "s3_files"),
    ("data",),
    ("models",),
    ("metrics", "classification_metrics", "baselines", "transferability"),
    ("checkpoint",),
    ("registry", "production"),
    ("content", "evidence"),
    ("tasks",),
    ("serving",),
    ("training",),
    ("tuning",),
    ("report",),
)
"""From the ground up: a module may import from its own floor and from those below."""
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
BARRED = {"models": ("ray", "ray_app.data", "pyarrow"), "uri": ("ray",), "schedule": ("ray", "torch")}
"""What some rooms may not import although it lies below them, or outside."""
SOURCES = sorted(path for folder in (PACKAGE, "jobs") for path in (REPOSITORY / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too, except for type checking alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written from the root"
            assert node.module is not None
            # `from ray_app import storage` imports a module, `from ray_app.storage import Storage` a name of one.
            yield from (f"{PACKAGE}.{alias.name}" for alias in node.names) if node.module == PACKAGE else [node.module]


OPTIONAL = {"keras", "h5py"}
"""Not in the development environment."""
PACKAGE_SOURCES = [path for path in SOURCES if module_name(path).startswith(f"{PACKAGE}.")]


@pytest.mark.parametrize("path", PACKAGE_SOURCES, ids=module_name)
def test_imports_point_down(path: Path) -> None:
    here = room(module_name(path))
    assert here in FLOOR_OF, f"give {here} a floor in this test"
    for name in imports(path):
        if name.startswith(f"{PACKAGE}."):
            assert FLOOR_OF[room(name)] <= FLOOR_OF[here], f"{module_name(path)} imports {name}, which lies above it"
        assert name not in ("jobs", "tests"), f"{module_name(path)} imports {name}"


@pytest.mark.parametrize(
    "path", [path for path in PACKAGE_SOURCES if room(module_name(path)) in BARRED], ids=module_name
)
def test_rooms_keep_to_themselves(path: Path) -> None:
    for name in imports(path):
        for barred in BARRED[room(module_name(path))]:
            assert name != barred, module_name(path)
            assert not name.startswith(f"{barred}."), module_name(path)


def test_metrics_need_numpy_and_torch_alone() -> None:
    roots = {name.split(".")[0] for name in imports(REPOSITORY / PACKAGE / "metrics.py")}
    assert roots - sys.stdlib_module_names <= {"numpy", "torch"}


def test_ray_is_started_in_one_place() -> None:
    starts = {
        module_name(path)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "init" and ast.unparse(node.value) == "ray"
    }
    assert starts == {"jobs.door"}


def test_predictions_are_made_without_ray() -> None:
    """The predictor also answers in a process that has no Ray, and so does the whole application on a plain server."""
    code = "import sys, ray_app.serving.api; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_importing_everything_is_silent(tmp_path: Path) -> None:
    """No output, no files, no environment, no logging set-up, no cluster.

    What other packages do when they are imported is theirs (Ray sets RAY_CLIENT_MODE), so they come first.
    """
    found = {name for path in PACKAGE_SOURCES for name in imports(path) if name.split(".")[0] != PACKAGE}
    others = found - OPTIONAL
    code = f"""
import importlib, json, logging, os, sys
for name in {sorted(others)}:
    importlib.import_module(name)
before = dict(os.environ), list(logging.getLogger().handlers)
for name in {[module_name(path) for path in PACKAGE_SOURCES]}:
    importlib.import_module(name)
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized(), name
    changed = {{key for key in os.environ.keys() | before[0].keys() if os.environ.get(key) != before[0].get(key)}}
assert logging.getLogger().handlers == before[1]
print(json.dumps([len(sys.modules), sorted(changed)]))
"""
    # Ray Serve's own models are written for an older pydantic.
    theirs = "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
    command = [sys.executable, "-W", "error", "-W", theirs, "-c", code]
    # A fresh environment: what an import sets has already been set here, and would be inherited.
    fresh = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    fresh["MLFLOW_DISABLE_TELEMETRY"] = "true"  # its import would leave a file in the home folder
    run = subprocess.run(command, cwd=tmp_path, env=fresh, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    count, changed = json.loads(run.stdout)  # the only line, or this fails
    assert count > len(PACKAGE_SOURCES)
    assert changed == []
    assert list(tmp_path.iterdir()) == []


def test_a_job_imports_its_door_before_ray_and_whatever_may_import_it() -> None:
    """The door sets what Ray reads when it is first imported."""
    jobs = {path.stem for path in (REPOSITORY / "jobs").glob("*.py")}
    doors = 0
    for path in sorted((REPOSITORY / "jobs").glob("*.py")):
        modules = list[str]()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                modules += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules.append(node.module or "")
        ours = [name for name in modules if name.partition(".")[0] in {"ray", PACKAGE} | jobs]
        if "door" in ours:
            assert ours[0] == "door", f"{path.name}: {ours[0]} is imported before the door"
            doors += 1
    assert doors > 10
