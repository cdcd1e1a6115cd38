"""Every benchmark can be started: what it needs of the package is where it looks for it."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_it_imports_is_there(name: str, monkeypatch: pytest.MonkeyPatch):
    for folder in ("jobs", "benchmarks"):
        monkeypatch.syspath_prepend(ROOT / folder)
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), "the head says the command"
