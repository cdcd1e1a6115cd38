"""Text files, block by block, and CSV in them; the rows of a block and the lines of it that are not rows.

Arrow's parsers do the work; a block that they refuse as a whole is gone through line by line, so that one bad line
costs one line.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from ray_app.data.dialect import Header

BLOCK_BYTES = 4 << 20
_LONGEST_LINE = 64 << 20
_LONGEST_RECORD = 200
"""Lines that one quoted CSV record may span."""
_NULLS = ["", "NULL", "null", "NaN", "nan", "None", "N/A", "\\N"]
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_TEXT = "\uffff"
"""No character, by its definition."""
_BYTES = {
    pa.string(): pa.binary(), pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary(), pa.binary_view(): pa.binary(),
}  # fmt: skip
_TEXT = {pa.binary(): pa.string(), pa.large_binary(): pa.large_string()}


class Rows(NamedTuple):
    """What a block of text held."""

    table: pa.Table
    numbers: NDArray[np.int64]
    """Position of each row of `table` among the lines of the block."""
    bad: dict[int, str]
    """Position and text of the lines that are not rows."""


def text_blocks(stream: pa.NativeFile, quotes: bool, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The stream in blocks of whole lines; with `quotes`, not cut inside quoted text if that can be helped.

    Raises:
        OSError: the stream breaks off (a truncated .gz) or has a line of more than 64 MiB; what came before was given.
    """
    rest = b""
    while data := stream.read(size):
        rest += data
        cut = rest.rfind(b"\n") + 1
        if quotes and len(rest) < 2 * size:  # beyond that, a quote was never closed
            cut = _even_cut(rest, cut)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
        elif len(rest) > _LONGEST_LINE:
            raise OSError(f"a line of more than {_LONGEST_LINE >> 20} MiB: is this a text file?")
    if rest:
        yield rest


def parse_csv(block: bytes, header: Header, columns: Sequence[str]) -> Rows:
    """The wanted columns as text, null where the field is empty or one of the usual words for nothing.

    Raises:
        pyarrow.ArrowInvalid: it cannot be told where its rows end.
    """
    block = _marked(block)
    wanted = [name for name in columns if name in header.names]
    lines = block.splitlines(keepends=True)
    numbers, bad = np.arange(sum(bool(line.strip(b"\r\n")) for line in lines)), dict[int, str]()
    table, refused = _read_csv(block, header, wanted)
    whole = not header.quotes or not lines or _closed(header.delimiter, lines[-1])
    # Quoted text over several lines, or a quote that is never closed, which swallows what follows.
    if table.num_rows + len(refused) != len(numbers) or not whole:
        block, numbers, bad = _records(lines, header)
        table, refused = _read_csv(block, header, wanted)
        if table.num_rows + len(refused) != len(numbers):
            raise pa.ArrowInvalid("its lines cannot be told apart")
    bad.update((int(numbers[position]), text) for position, text in refused.items())
    numbers = np.delete(numbers, list(refused))
    marked = [np.asarray(pc.match_substring(table[name], _NOT_TEXT).fill_null(False)) for name in wanted]
    not_text = np.logical_or.reduce(marked) if marked else np.zeros(table.num_rows, bool)
    bad.update((number, "not UTF-8") for number in numbers[not_text].tolist())
    return Rows(table.filter(pa.array(~not_text)), numbers[~not_text], bad)


def decode(table: pa.Table) -> tuple[pa.Table, list[int]]:
    """Bytes and unchecked text as text; rows that are not UTF-8 are left out and their positions returned."""
    table = table.cast(pa.schema([field.with_type(_BYTES.get(field.type, field.type)) for field in table.schema]))
    schema = pa.schema([field.with_type(_TEXT.get(field.type, field.type)) for field in table.schema])
    try:
        return table.cast(schema), []
    except pa.ArrowInvalid:
        columns = [column.to_pylist() for column in table.columns if column.type in _TEXT]
    wrong = {k for column in columns for k, value in enumerate(column) if not _is_text(value)}
    keep = np.ones(table.num_rows, bool)
    keep[list(wrong)] = False
    return table.filter(pa.array(keep)).cast(schema), sorted(wrong)


def _marked(block: bytes) -> bytes:
    """The block with `_NOT_TEXT` for bytes that are not UTF-8, which pyarrow cannot hand to `invalid_row_handler`."""
    try:
        block.decode()
    except UnicodeDecodeError:
        return _SURROGATE.sub(_NOT_TEXT, block.decode(errors="surrogateescape")).encode()
    return block


def _even_cut(block: bytes, cut: int) -> int:
    """The last end of a line, at or before `cut`, with an even number of quotes before it (0 if there is none near)."""
    for _ in range(_LONGEST_RECORD):
        if not cut or block.count(b'"', 0, cut) % 2 == 0:
            return cut
        cut = block.rfind(b"\n", 0, block.rfind(b'"', 0, cut)) + 1
    return 0


def _read_csv(block: bytes, header: Header, wanted: list[str]) -> tuple[pa.Table, dict[int, str]]:
    """The rows that have as many fields as the header; position and text of the others."""
    refused: dict[int, str] = {}

    def refuse(row: pa.csv.InvalidRow) -> str:
        refused[row.number - 1] = row.text.replace(_NOT_TEXT, "\N{REPLACEMENT CHARACTER}")
        return "skip"

    table = pa.csv.read_csv(
        pa.py_buffer(block or b"\n"),
        pa.csv.ReadOptions(column_names=list(header.names), use_threads=False, block_size=len(block) + 1),
        pa.csv.ParseOptions(
            delimiter=header.delimiter,
            quote_char='"' if header.quotes else False,
            newlines_in_values=header.quotes,
            invalid_row_handler=refuse,
        ),
        pa.csv.ConvertOptions(
            include_columns=wanted,
            column_types=dict.fromkeys(wanted, pa.string()),
            null_values=_NULLS,
            strings_can_be_null=True,
        ),
    )
    return table, refused


def _records(lines: list[bytes], header: Header) -> tuple[bytes, NDArray[np.int64], dict[int, str]]:
    """The text without lines that open a quote and never properly close it; positions of what is left, and of those."""
    odd = [line.count(b'"') % 2 for line in lines]
    kept: list[bytes] = []
    numbers: list[int] = []
    bad: dict[int, str] = {}
    position = number = 0
    while position < len(lines):
        line = lines[position]
        if not line.strip(b"\r\n"):
            position += 1
            continue
        stop = position + 1
        if not _closed(header.delimiter, line):
            stop = next((k + 1 for k in range(stop, min(stop + _LONGEST_RECORD, len(lines))) if odd[k]), 0)
        record = b"".join(lines[position:stop])
        if stop == position + 1 or (stop and _is_record(record, header)):
            kept.append(record)
            numbers.append(number)
        else:
            bad[number] = line.strip(b"\r\n").decode().replace(_NOT_TEXT, "\N{REPLACEMENT CHARACTER}")
            stop = position + 1
        position, number = stop, number + 1
    return b"".join(kept), np.array(numbers, np.int64), bad


def _closed(delimiter: str, line: bytes) -> bool:
    """Whether each field that a quote opens is closed again; a quote inside a field is a character like others."""
    mark = re.escape(delimiter.encode())
    field = rb'(?:"(?:[^"]|"")*+"[^%b]*+|[^"%b][^%b]*+)?' % (mark, mark, mark)
    return re.fullmatch(rb"%b(?:%b%b)*+" % (field, mark, field), line) is not None


def _is_record(record: bytes, header: Header) -> bool:
    try:
        rows = list(csv.reader(io.StringIO(record.decode(), newline=""), delimiter=header.delimiter, strict=True))
    except csv.Error:
        return False
    return len(rows) == 1 and len(rows[0]) == len(header.names)


def _is_text(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False
