"""Every key of the configuration with its type, default and meaning, as text for `--help`."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from ray_app.faults import sections_in

_WIDTH = 44


def describe_keys(section: type[BaseModel]) -> str:
    """One line per key, `section.key: type = default  meaning`; a section that comes again is named, not repeated."""
    return "\n".join(_lines(section, "", {}))


def _lines(section: type[BaseModel], path: str, seen: dict[type[BaseModel], str]) -> Iterator[str]:
    seen[section] = path
    for name, field in section.model_fields.items():
        inner = next(iter(sections_in(field.annotation)), None)
        if inner is None:
            yield _line(f"{path}{name}: {_type_name(field.annotation)}{_default(field)}", field.description)
            continue
        key = f"{path}{name}{_position(field)}"
        unset = ", unset" if field.default is None else ""
        if known := next((one for one in inner.__mro__ if one in seen), None):
            yield _line(f"{key}: as {seen[known].rstrip('.')}{unset}", field.description)
            seen[inner] = f"{key}."
            for other in inner.__annotations__ if inner is not known else ():
                own = inner.model_fields[other]
                yield _line(f"{key}.{other}: {_type_name(own.annotation)}{_default(own)}", own.description)
            continue
        yield ""
        yield _line(f"{key}:{unset.lstrip(',')}", field.description or " ".join((inner.__doc__ or "").split()))
        yield from _lines(inner, f"{key}.", seen)


def _line(left: str, meaning: str | None) -> str:
    left = f"  {left}"
    if not meaning:
        return left
    gap = "\n" + " " * (_WIDTH + 2) if len(left) > _WIDTH else " " * (_WIDTH + 2 - len(left))
    return f"{left}{gap}{' '.join(meaning.split())}"


def _position(field: FieldInfo) -> str:
    """`.0` for a list of sections, whose parts are addressed by their position; `.KEY` for a mapping."""
    kinds = {get_origin(choice) for choice in (field.annotation, *get_args(field.annotation))}
    return ".0" if tuple in kinds else ".KEY" if dict in kinds else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    value = field.default
    if isinstance(value, tuple):
        return f" = [{', '.join(map(str, value))}]"
    return f" = {'unset' if value is None else value}"


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type_name(arguments[0])} to {_type_name(arguments[1])}"
    if origin is not None and hasattr(annotation, "__metadata__"):
        return _type_name(arguments[0])
    if arguments:
        return " | ".join(_type_name(argument) for argument in arguments if argument is not type(None))
    return {SecretStr: "secret"}.get(annotation, str(getattr(annotation, "__name__", annotation)))
