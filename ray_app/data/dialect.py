"""How the text of a file is written, as far as the file does not say so itself."""

import csv
from typing import NamedTuple

_ONE_CHARACTER = "\x1f"
"""Stands for a separator of several characters: the one that ASCII has for it, and no text holds."""


class Header(NamedTuple):
    """The columns of a CSV file and how they are parted."""

    names: tuple[str, ...]
    delimiter: str
    quotes: bool = True
    """Whether a field may stand in quotes; without, a quote is a character like others."""


class Dialect(NamedTuple):
    """What sets a kind of text file apart from CSV in UTF-8 with a header."""

    names: tuple[str, ...] = ()
    """Of the columns, where the file has no header."""
    delimiter: str = ""
    """Unset: the header shows it."""
    quotes: bool = True
    latin: bool = False
    """What is not UTF-8 is Latin-1."""
    typed: bool = False
    """Names in the header carry a type: `user_id:token`."""

    def plain(self, block: bytes) -> bytes:
        """The same text in UTF-8, its fields parted by one character."""
        if self.latin and not _is_utf8(block):
            block = block.decode("latin-1").encode()
        return block.replace(self.delimiter.encode(), _ONE_CHARACTER.encode()) if self.delimiter[1:] else block

    def split_header(self, block: bytes) -> tuple[Header, bytes]:
        """The header of a CSV file, and what follows; a delimiter not set is the most frequent of comma, tab, ; and |.

        Raises:
            csv.Error: the first line that is not empty is no header.
        """
        block = block.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
        delimiter = _ONE_CHARACTER if self.delimiter[1:] else self.delimiter
        if self.names:
            return Header(self.names, delimiter, self.quotes), block
        line, _, rest = block.partition(b"\n")
        text = line.decode("utf-8", errors="replace").strip("\r")
        delimiter = delimiter or max(",\t;|", key=text.count)
        names: list[str] = []
        for name in next(csv.reader([text], delimiter=delimiter), []):
            bare = name.partition(":")[0] if self.typed else name
            names.append(bare if bare not in names else f"{bare} ({len(names) + 1})")
        return Header(tuple(names), delimiter, self.quotes), rest


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
