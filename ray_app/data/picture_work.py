"""The pictures or texts behind `data.events`, cut into pieces of work: rows that hold them, and files by name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from ray_app.data.files import Piece, read_piece
from ray_app.data.picture_passes import PER_CHUNK, PictureChunk
from ray_app.data.picture_places import holds_pictures
from ray_app.data.picture_set import Kind
from ray_app.data.picture_sources import Named, Sources, rows_of
from ray_app.data.quarantine import Reason, refuse
from ray_app.data.sources import Source, cut
from ray_app.picture_config import PictureColumns, TextColumns
from ray_app.schema import QUARANTINE_SCHEMA, Col
from ray_app.storage import Storage


@dataclass
class Plan:
    """All work of the first pass, and what was found out while it was cut."""

    chunks: list[PictureChunk] = field(default_factory=list)
    rows: Counter[int] = field(default_factory=Counter)
    """Rows by table; of text files that are read whole, none."""
    broken: set[int] = field(default_factory=set)
    """Tables that break off."""
    refused: pa.Table = field(default_factory=QUARANTINE_SCHEMA.empty_table)
    """Lines of tables that are no rows, and tables that cannot be read."""


def make_plan(
    storage: Storage, sources: Sources, tables: Sequence[Source], columns: PictureColumns | TextColumns
) -> Plan:
    """Tables with bytes or texts in them are cut by their row groups; what is named, so many pictures at a time.

    Tables that name files are read here, for they are small.
    """
    plan, named, refused = Plan(), list(sources.pictures), [QUARANTINE_SCHEMA.empty_table()]
    refused += [refuse(one.entry.uri, None, Reason.UNREADABLE_FILE, [one.problem]) for one in tables if one.problem]
    kind: Kind = "texts" if isinstance(columns, TextColumns) else "pictures"
    is_whole = [_is_whole(storage, table, columns) for table in tables]
    for pieces in cut(tables, PER_CHUNK[kind]):
        own = [piece for piece in pieces if is_whole[piece.source]]
        if own:
            plan.chunks.append(PictureChunk(number=len(plan.chunks), pieces=own))
        for piece in pieces:
            if isinstance(columns, PictureColumns) and piece not in own:
                named += _names(storage, piece, columns, plan, refused)
            elif piece.format == "parquet":
                plan.rows[piece.source] += piece.num_rows
    for start in range(0, len(named), PER_CHUNK["pictures"]):
        some = named[start : start + PER_CHUNK["pictures"]]
        plan.chunks.append(PictureChunk(number=len(plan.chunks), named=some))
    plan.refused = pa.concat_tables(refused)
    return plan


def _is_whole(storage: Storage, table: Source, columns: PictureColumns | TextColumns) -> bool:
    """Whether a table holds what is read, and not only the names of files."""
    if isinstance(columns, TextColumns):
        return True
    return holds_pictures(storage, table, columns.image)


def _names(storage: Storage, piece: Piece, columns: PictureColumns, plan: Plan, refused: list[pa.Table]) -> list[Named]:
    found: list[Named] = []
    wanted = list(columns.model_dump().values())
    for raw in read_piece(storage, piece, wanted, wanted):
        found += [said for said, _ in rows_of(raw, piece, columns)]
        if raw.refused is not None:
            refused.append(raw.refused)
            plan.rows[piece.source] += len(raw.refused) - raw.refused[Col.ROW].null_count
            plan.broken |= {piece.source} if raw.refused[Col.ROW].null_count else set()
    plan.rows[piece.source] += len(found)
    return found
