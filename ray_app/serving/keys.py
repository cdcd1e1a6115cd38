"""API keys: only their hashes are kept, in a file, an environment variable or a mounted secret."""

import hashlib
import hmac
import ipaddress
import re
import secrets
from pathlib import Path

from ray_app.errors import ConfigError
from ray_app.serve_config import ServeConfig

VARIABLE = "RETAIL_API_KEYS"
_LINE = re.compile(r"(?P<name>[\w.-]{1,64}):(?P<hash>[0-9a-f]{64})")


class Keys:
    """Names by the SHA-256 of the key. Keys are random and long, so a fast hash keeps them."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    @classmethod
    def parse(cls, text: str, source: str) -> "Keys":
        """Lines `name:hash`; empty lines and lines that begin with # are passed over.

        Raises:
            ConfigError: a line is no such thing.
        """
        lines = [line.strip() for line in re.split(r"[\n,]", text)]
        found = [(number, _LINE.fullmatch(line)) for number, line in enumerate(lines, 1) if line and line[0] != "#"]
        if faults := [f"{source}: line {number} is not `name:sha256`" for number, match in found if match is None]:
            raise ConfigError(faults)
        return cls({match["hash"]: match["name"] for _, match in found if match})

    def owner(self, key: str) -> str | None:
        """Whose key it is; None for a wrong one."""
        given = digest(key)
        found = None
        for known, name in self._names.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, given):
                found = name
        return found


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key(name: str) -> tuple[str, str]:
    """A key to be handed to somebody, and the line that lets it in.

    Raises:
        ConfigError: the name does not fit into a line.
    """
    key = secrets.token_urlsafe(32)
    line = f"{name}:{digest(key)}"
    if not _LINE.fullmatch(line):
        raise ConfigError([f"--new-key: {name!r} given; should be 1 to 64 letters, digits, dots, dashes, underscores"])
    return key, line


def read_keys(settings: ServeConfig, environment: dict[str, str]) -> Keys | None:
    """The keys of the service; None where none are asked for.

    Raises:
        ConfigError: keys are asked for, and there are none.
    """
    open_to_others = settings.grpc_port is not None or not is_loopback(settings.host)
    if not (open_to_others if settings.require_keys is None else settings.require_keys):
        return None
    if settings.api_keys_file is not None:
        try:
            return Keys.parse(Path(settings.api_keys_file).read_text(), settings.api_keys_file)
        except OSError as error:
            raise ConfigError([f"serve.api_keys_file: {settings.api_keys_file}: {error.strerror}"]) from error
    if environment.get(VARIABLE):
        return Keys.parse(environment[VARIABLE], VARIABLE)
    gate = f"serve.host: {settings.host}" if settings.grpc_port is None else f"serve.grpc_port: {settings.grpc_port}"
    raise ConfigError(
        [
            f"{gate} is not loopback, so API keys are needed: `jobs/serve.py --new-key NAME` "
            f"makes one for serve.api_keys_file or {VARIABLE}; serve.require_keys=false does without"
        ]
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
