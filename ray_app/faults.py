"""What is wrong with a configuration, one line per fault: the path of the key, what was given, what is allowed."""

import difflib
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

_SHOWN = 80
_REASONS = {
    "missing": "required, but not given",
    "tuple_type": "should be a list",
    "dict_type": "should be a mapping",
    "invalid_key": "keys should be text",
    "string_type": "should be text (in quotes, where YAML would read something else)",
}


def describe(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line for each key of `root` that is wrong; what follows from a fault further down is left out."""
    faults: dict[tuple[int | str, ...], list[str]] = {}
    given: dict[tuple[int | str, ...], str] = {}
    for fault in error.errors():
        path, expected = _locate(root, fault)
        faults.setdefault(path, []).append(_reason(fault, expected))
        given[path] = _given(fault, expected)
    return [
        f"{'.'.join(map(str, path)) or '(top level)'}: {given[path]}{' or '.join(dict.fromkeys(reasons))}"
        for path, reasons in faults.items()
        # A list with a bad part is also "too short": pydantic counts the good ones.
        if not any(other[: len(path)] == path and other != path for other in faults)
    ]


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The section classes that a field's type allows, inside lists too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in sections_in(argument)]


def _locate(root: type[BaseModel], fault: ErrorDetails) -> tuple[tuple[int | str, ...], Any]:
    """The path as the file has it (pydantic adds names for the branches of a union), and the type that stands there."""
    path: tuple[int | str, ...] = ()
    expected: Any = root
    *_, last = fault["loc"] or ("",)
    for part in fault["loc"]:
        step = next((inner for choice in _choices(expected) for inner in _inside(choice, part)), None)
        if step is not None:
            path, expected = (*path, part), step
        elif part is last and fault["type"] in ("extra_forbidden", "invalid_key"):
            path = (*path, part)
    return path, expected


def _choices(annotation: Any) -> Iterator[Any]:
    """The branches of a union, or the type itself."""
    if get_origin(annotation) is Annotated:
        yield from _choices(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for argument in get_args(annotation):
            yield from _choices(argument)
    else:
        yield annotation


def _inside(choice: Any, part: int | str) -> Iterator[Any]:
    if isinstance(choice, type) and issubclass(choice, BaseModel):
        if part in choice.model_fields:
            yield choice.model_fields[str(part)].annotation
    elif get_origin(choice) is tuple and isinstance(part, int):
        yield get_args(choice)[0]
    elif get_origin(choice) is dict and part != "[key]":
        yield get_args(choice)[1]


def _given(fault: ErrorDetails, expected: Any) -> str:
    """What to say of the value: nothing where it is missing, a secret or a whole section."""
    value = fault["input"]
    secret = SecretStr in _choices(expected)
    if secret or isinstance(value, dict | BaseModel) or fault["type"] in ("missing", "extra_forbidden", "invalid_key"):
        return ""
    shown = "nothing" if value is None else repr(value)
    return f"{shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}...'} given; "


def _reason(fault: ErrorDetails, expected: Any) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    keys = [name for section in sections_in(expected) for name in section.model_fields]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), keys, n=1)
        return f"unknown key{f', did you mean {near[0]!r}?' if near else ';'} allowed: {', '.join(keys)}"
    if kind == "model_type":
        return f"should be a section with some of the keys {', '.join(keys)}"
    if kind == "too_short":
        return f"should have at least {context['min_length']} item"
    reason = _REASONS.get(kind, fault["msg"])
    return reason.removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
