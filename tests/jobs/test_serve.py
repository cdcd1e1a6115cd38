"""What the job of the service says before it starts anything."""

from argparse import Namespace
from pathlib import Path

import pytest
import serve

from ray_app.config import Config, parse_config
from ray_app.errors import ConfigError
from ray_app.registry import RegistryError
from ray_app.serving.keys import Keys


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config({"storage": {"path": str(tmp_path)}, "serve": {"port": 1}})


def test_a_new_key_is_shown_with_the_line_that_lets_it_in(config: Config, capsys: pytest.CaptureFixture[str]):
    serve.main(config, Namespace(new_key="web"))
    key, line = (text.rpartition(": ")[2] for text in capsys.readouterr().out.splitlines())
    assert Keys.parse(line, "line").owner(key) == "web"


def test_faults_are_told_before_ray_starts(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RETAIL_API_KEYS", raising=False)
    with pytest.raises(RegistryError, match=r"nothing is in production; run jobs/promote\.py first"):
        serve.main(config, Namespace(new_key=None, build=None))
    public = config.model_copy(update={"serve": config.serve.model_copy(update={"host": "0.0.0.0"})})
    with pytest.raises(ConfigError, match="is not loopback, so API keys are needed"):
        serve.main(public, Namespace(new_key=None, build=None))
