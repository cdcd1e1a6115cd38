"""Plain trees of mappings and lists: read from YAML that may not name a key twice, and changed leaf by leaf."""

from pathlib import Path
from typing import Any

import yaml


class TreeError(Exception):
    """What is wrong with the text or the path, in words for a person."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would silently keep the last; its errors have a place."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value; PyYAML lets the `ValueError` of 2020-02-30, which looks like a date, pass."""
        try:
            return super().construct_object(node, deep)
        except ValueError:
            raise yaml.constructor.ConstructorError(None, None, "no such date or number", node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, once its keys are known to differ."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is a list or mapping", key.start_mark)
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_tree(path: str | Path) -> dict[Any, Any]:
    """The mapping that a YAML file holds; an empty file is an empty mapping.

    Raises:
        TreeError: the file cannot be read, is not UTF-8 or YAML, or holds something else.
    """
    try:
        tree = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TreeError(f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise TreeError(f"is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise TreeError(f"the top level must be a mapping of sections, got {type(tree).__name__}")
    return tree


def parse_yaml(text: str) -> Any:
    """The value that YAML text stands for.

    Raises:
        TreeError: it is not YAML; the text itself, which may be a secret, is not repeated.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (derived from the safe one)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise TreeError(f"is not YAML: {error.problem}{place}") from None
    except yaml.YAMLError as error:
        raise TreeError(f"is not YAML: {' '.join(str(error).split())}") from None


def put(tree: dict[Any, Any], key: str, value: object) -> None:
    """Set `a.b.0.c` in place; tuples on the way become lists, a last part that is new is added.

    Raises:
        TreeError: the way there does not exist.
    """
    node: Any = tree
    *way, last = key.split(".")
    for depth, part in enumerate(way):
        position = _position(node, part, ".".join(way[:depth]))
        if node[position] is None:
            raise TreeError(f"{'.'.join(way[: depth + 1])} is not set, so nothing below it can be; set it in the file")
        if isinstance(node[position], tuple):
            node[position] = list(node[position])
        node = node[position]
    if isinstance(node, dict):
        node[last] = value
    else:
        node[_position(node, last, ".".join(way))] = value


def _position(node: Any, part: str, path: str) -> str | int:
    if isinstance(node, dict):
        if part not in node:
            raise TreeError(f"unknown key {part!r}; allowed: {', '.join(map(str, node))}")
        return part
    if not isinstance(node, list):
        raise TreeError(f"{path} is a plain value and has no key {part!r}")
    if not part.isdecimal() or int(part) >= len(node):
        raise TreeError(f"{part!r} is not a position in a list of {len(node)} (counted from 0)")
    return int(part)
