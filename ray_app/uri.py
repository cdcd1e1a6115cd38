"""Names of files: plain paths, `file://` and `s3://bucket/key`, and the globs among them."""

import re
from typing import NamedTuple
from urllib.parse import unquote

from ray_app.errors import StorageError

SCHEMES = ("file", "s3")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WILDCARD = re.compile(r"[*?\[]")


class FileEntry(NamedTuple):
    """A file as a listing shows it."""

    uri: str
    size: int
    """Bytes."""
    etag: str
    """Changes when the content does: the ETag on S3, time of change and size on a local disk."""


def join(uri: str, *parts: str) -> str:
    """`uri` with `parts` below it; empty parts and doubled slashes are left out."""
    tail = "/".join(stripped for part in parts if (stripped := part.strip("/")))
    if not tail:
        return uri
    return f"{uri}{tail}" if uri.endswith("/") else f"{uri}/{tail}"


def scheme(uri: str) -> str:
    """`file` or `s3`.

    Raises:
        StorageError: another scheme.
    """
    found = _SCHEME.match(uri)
    name = found[1].lower() if found else "file"
    if name not in SCHEMES:
        hint = " (write s3:// instead)" if name in ("s3a", "s3n") else ""
        raise StorageError(f"{uri}: unknown scheme {name!r}{hint}; give a path, file:///path or s3://bucket/key")
    return name


def local_path(uri: str) -> str:
    """The path that a plain path or `file://` URI names."""
    return unquote(uri[len("file://") :]) if uri.lower().startswith("file://") else uri


def bucket_and_key(uri: str) -> tuple[str, str]:
    """The two halves of `s3://bucket/key`; the key is taken as it stands and may be empty.

    Raises:
        StorageError: there is no bucket in it.
    """
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not bucket:
        raise StorageError(f"{uri}: no bucket in it; write s3://bucket/key")
    return bucket, key


def is_glob(uri: str) -> bool:
    """Whether `*`, `?` or `[...]` stand in it."""
    return _WILDCARD.search(uri) is not None


def literal_prefix(glob: str) -> str:
    """What stands before the first wildcard."""
    return _WILDCARD.split(glob, maxsplit=1)[0]


def literal_folder(glob: str) -> str:
    """The folder that every match lies in: what stands before the component with the first wildcard."""
    folder, slash, _ = literal_prefix(glob).rpartition("/")
    return folder or slash


def glob_pattern(glob: str) -> re.Pattern[str]:
    """A pattern for `re.fullmatch`: files that `glob` names, and files inside folders that it names.

    `*` and `?` stop at a slash, `**` as a whole component stands for any number of folders.

    Raises:
        StorageError: a set like `[z-a]` that is none.
    """
    parts = glob.split("/")
    regex = ""
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if part == "**":
            regex += ".*" if last else "(?:[^/]+/)*"
        else:
            regex += _component(part) + ("" if last else "/")
    try:
        return re.compile(f"{regex}(?:/.*)?", re.DOTALL)
    except re.error as error:
        raise StorageError(f"{glob}: not a pattern of file names: {error.msg}") from None


def _component(part: str) -> str:
    tokens = re.findall(r"\[!?\]?[^\]/]*\]|.", part, re.DOTALL)
    return "".join(_piece(token) for token in tokens)


def _piece(glob: str) -> str:
    if len(glob) > 1:
        inside = glob[1:-1].replace("\\", "\\\\").replace("[", "\\[")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return {"*": "[^/]*", "?": "[^/]"}.get(glob, re.escape(glob))
