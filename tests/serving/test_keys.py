"""API keys: who needs one, what is kept of it, and what is said of a file that cannot be read."""

from pathlib import Path

import pytest

from ray_app.errors import ConfigError
from ray_app.serve_config import ServeConfig
from ray_app.serving.keys import VARIABLE, Keys, is_loopback, new_key, read_keys


def test_a_key_lets_in_by_its_hash_alone():
    key, line = new_key("web")
    other, more = new_key("app")
    keys = Keys.parse(f"\n# a comment\n{line},{more}\n", "keys")
    assert (keys.owner(key), keys.owner(other), keys.owner(key[:-1]), keys.owner("")) == ("web", "app", None, None)
    assert keys.owner(line.partition(":")[2]) is None, "the hash itself is no key"
    assert keys.owner("\udcff") is None


@pytest.mark.parametrize("line", ["web", "web:abc", f"we b:{'0' * 64}", f":{'0' * 64}", f"web:{'G' * 64}"])
def test_a_line_that_is_no_key_is_named(line: str):
    with pytest.raises(ConfigError, match="keys: line 2 is not"):
        Keys.parse(f"# first\n{line}", "keys")
    with pytest.raises(ConfigError, match="--new-key"):
        new_key("we b")


def test_keys_are_asked_for_off_loopback(tmp_path: Path):
    key, line = new_key("web")
    (tmp_path / "keys").write_text(line)
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        assert read_keys(ServeConfig(host=host), {}) is None
        assert is_loopback(host)
    with pytest.raises(ConfigError, match=r"serve\.host: 0\.0\.0\.0 is not loopback"):
        read_keys(ServeConfig(host="0.0.0.0"), {})
    assert read_keys(ServeConfig(host="0.0.0.0", require_keys=False), {}) is None
    for found in (
        read_keys(ServeConfig(host="::"), {VARIABLE: line}),
        read_keys(ServeConfig(require_keys=True, api_keys_file=str(tmp_path / "keys")), {}),
    ):
        assert found is not None
        assert found.owner(key) == "web"
    with pytest.raises(ConfigError, match=r"serve\.api_keys_file: .*No such file"):
        read_keys(ServeConfig(require_keys=True, api_keys_file=str(tmp_path / "none")), {})
