"""The raw files of a log and of its catalogue, found by name, and how each is to be read."""

from collections.abc import Sequence
from typing import NamedTuple

from ray_app.data.dialect import Dialect
from ray_app.data.files import Format, format_of
from ray_app.data.layouts import LAYOUTS, Files, Layout, layout_of, stem
from ray_app.errors import DataError
from ray_app.storage import FileEntry, Storage

_SHOWN = 8
"""Names of files in a message."""
_CLOSED = (".zip", ".tar", ".tar.gz", ".tgz", ".xlsx", ".xls")
"""As many a data set is downloaded."""


class RawFile(NamedTuple):
    """One raw file and how it is to be read."""

    entry: FileEntry
    format: Format
    dialect: Dialect = Dialect()


def find_sources(storage: Storage, patterns: Sequence[str], kind: str, setting: str) -> list[RawFile]:
    """The files behind `patterns`, each once, sorted by URI; in folders, files of other formats are passed over.

    Raises:
        DataError: nothing is configured, a pattern finds no file, or none that `kind` (`data.format`) can be.
    """
    if not patterns:
        raise DataError(f"{setting} is not set: name files, folders or globs of parquet, CSV or JSON lines")
    found: dict[str, RawFile] = {}
    for pattern in patterns:
        entries = storage.list_files(pattern)
        if not entries:
            raise DataError(f"{pattern}: no files there ({setting})")
        known = _laid_out(entries, pattern, kind, setting) if kind in LAYOUTS else _of_kind(entries, pattern, kind)
        found.update((file.entry.uri, file) for file in known)
    return [found[uri] for uri in sorted(found)]


def find_catalog(storage: Storage, patterns: Sequence[str], kind: str, events: Sequence[RawFile]) -> list[RawFile]:
    """The catalogue that is configured, or else the one that the layout has beside the events; maybe none.

    Raises:
        DataError: as `find_sources`, of what is configured.
    """
    if patterns:
        return find_sources(storage, patterns, kind, "data.items")
    layout, found = layout_of(kind), list[RawFile]()
    places = {(event.entry.uri.rpartition("/")[0], stem(event.entry.uri, layout.events.patterns)) for event in events}
    for folder, name in sorted((folder, name) for folder, name in places if name is not None and layout.items.patterns):
        wanted = [pattern.replace("*", name) for pattern in layout.items.patterns]
        beside = [entry for entry in storage.list_files(folder) if entry.uri.rpartition("/")[0] == folder]
        found += [_as_laid_out(entry, layout.items) for entry in beside if stem(entry.uri, wanted) is not None]
    return found


def _of_kind(entries: Sequence[FileEntry], pattern: str, kind: str) -> list[RawFile]:
    forms = [(entry, format_of(entry.uri) if kind == "auto" else kind) for entry in entries]
    known = [RawFile(entry, form) for entry, form in forms if form is not None]  # type: ignore[arg-type]
    if not known:
        raise DataError(
            f"{pattern}: none of its {len(entries)} files has a known ending, for example {entries[0].uri}; "
            "say what they are with data.format: parquet, csv or jsonl"
        )
    return known


def _laid_out(entries: Sequence[FileEntry], pattern: str, kind: str, setting: str) -> list[RawFile]:
    """The files that a layout knows by name, or the one that is named outright."""
    layout = LAYOUTS[kind]
    files = layout.events if setting == "data.events" else layout.items
    outright = len(entries) == 1 and _name(entries[0].uri) == _name(pattern.rstrip("/"))
    if outright and entries[0].uri.lower().endswith(_CLOSED):
        raise DataError(f"{pattern}: cannot be read as it is ({setting}): unpack it, or save the sheet as CSV")
    known = [entry for entry in entries if outright or _belongs(entry.uri, layout, files)]
    if known:
        return [_as_laid_out(entry, files) for entry in known]
    names = sorted({_name(entry.uri) for entry in entries})
    others = [name for name, other in LAYOUTS.items() if any(stem(e.uri, _telling(other)) is not None for e in entries)]
    raise DataError(
        f"{pattern}: no file there is laid out as data.format {kind} has it; looked for "
        f"{' or '.join(files.patterns) or 'none, for it has no such files'} (or .gz), found {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        + (f"; that looks like {' or '.join(others)}" if others and setting == "data.events" else "")
    )


def _telling(layout: Layout) -> list[str]:
    """Names of events that no other log has."""
    return [pattern for pattern in layout.events.patterns if not (pattern.startswith("*.") and format_of(pattern))]


def _belongs(uri: str, layout: Layout, files: Files) -> bool:
    """Whether a file is of this kind; what the catalogue may be called is no log, though a star would take it."""
    other = files is layout.events and stem(uri, layout.items.patterns) is not None
    return stem(uri, files.patterns) is not None and not other


def _as_laid_out(entry: FileEntry, files: Files) -> RawFile:
    """A file that was named outright and is not called as the layout has it is what its ending says."""
    form = format_of(entry.uri)
    laid_out = form is None or stem(entry.uri, files.patterns) is not None
    return RawFile(entry, form or "csv", files.dialect if laid_out else Dialect())


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]
