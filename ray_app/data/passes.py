"""The three passes of `prepare` over the data, each a pure function of one piece of work: read, settle, encode.

A pass writes files whose names depend on the work alone and hands back a small report, so that a task that is repeated
after a failure does no harm, and nothing but reports travels through the cluster.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from ray_app.data.dataset import ITEMS, Part
from ray_app.data.files import Piece, read_piece
from ray_app.data.logs import EVENTS_SCHEMA, LogRules, ParsedBatch, parse_events
from ray_app.data.quarantine import tally
from ray_app.data.staging import StagedFile, gather, stage
from ray_app.data.users import UserRules, settle
from ray_app.data.vocabulary import encode
from ray_app.schema import QUARANTINE_SCHEMA, Col, sequences_schema
from ray_app.storage import Storage, join

ROWS_PER_CHUNK = 1 << 18
"""Rows that a task holds in memory at a time, in every pass."""
STAGING = "staging"
QUARANTINE = "quarantine"
READ = "part-read-"
"""How files in quarantine begin that the first pass wrote."""


class Chunk(BaseModel):
    """Work of the first pass: some files, or parts of one."""

    number: int
    pieces: list[Piece]


class ChunkReport(BaseModel):
    """What a chunk held."""

    rows: dict[int, int] = {}
    """Rows by source."""
    staged: list[StagedFile] = []
    reasons: dict[str, int] = {}
    last: int | None = None
    """Time of the last purchase."""
    integers: dict[int, tuple[bool, bool]] = {}
    """By source: whether user ids and item ids are integers."""
    day_places: list[tuple[int, int]] = []
    """`times.day_places` of each batch."""
    unreadable: list[int] = []
    """Sources that could not be read to their end."""


class BucketWork(BaseModel):
    """Work of the second and third pass: a bucket, and the staged row groups that hold it."""

    number: int
    parts: list[tuple[str, int]] = []


class BucketReport(BaseModel):
    """What became of a bucket."""

    reasons: dict[str, int]
    events: dict[int, int]
    """Kept events by part of the split."""
    capped_users: int
    """Users with more events than `data.max_user_events`."""


class PartReport(BaseModel):
    """A finished file of sequences."""

    part: Part
    unknown_item_events: int


@dataclass(frozen=True)
class ReadPass:
    """Files -> events by bucket of users."""

    storage: Storage
    uri: str
    rules: LogRules
    num_buckets: int

    def __call__(self, chunk: Chunk) -> ChunkReport:
        """Stage the events of a chunk, and quarantine what is none."""
        report = ChunkReport()
        events, refused, held = [EVENTS_SCHEMA.empty_table()], [QUARANTINE_SCHEMA.empty_table()], 0
        names = self.rules.names
        wanted, ids = list(dict.fromkeys(names.values())), [names[Col.USER], names[Col.ITEM], names[Col.ORDER]]
        for piece in chunk.pieces:
            report.rows.setdefault(piece.source, 0)
            for raw in read_piece(self.storage, piece, wanted, ids):
                parsed = parse_events(raw, piece, self.rules)
                self._note(report, piece, parsed)
                events.append(parsed.events)
                refused.append(parsed.refused)
                held += parsed.events.num_rows + parsed.refused.num_rows
                if held >= ROWS_PER_CHUNK:
                    self._flush(chunk, report, events, refused)
                    held = 0
        self._flush(chunk, report, events, refused)
        return report

    def _note(self, report: ChunkReport, piece: Piece, parsed: ParsedBatch) -> None:
        events, refused, integers = parsed.events, parsed.refused, parsed.integers
        counts = tally(refused)
        report.reasons = dict(Counter(report.reasons) + counts)
        report.rows[piece.source] += events.num_rows + counts.total()
        report.day_places.append(parsed.day_places)
        if refused[Col.ROW].null_count:
            report.unreadable.append(piece.source)
        if integers is not None:
            before = report.integers.get(piece.source, (True, True))
            report.integers[piece.source] = (before[0] and integers[0], before[1] and integers[1])
            quantity = events[Col.QUANTITY].fill_null(1.0).to_numpy()
            bought = events[Col.TIME].to_numpy()[quantity > 0]
            if len(bought):
                report.last = max(int(bought.max()), report.last if report.last is not None else int(bought[0]))

    def _flush(self, chunk: Chunk, report: ChunkReport, events: list[pa.Table], refused: list[pa.Table]) -> None:
        """Write what has gathered and empty the lists."""
        name = f"{chunk.number:05d}-{len(report.staged):03d}.parquet"
        rows, bad = pa.concat_tables(events), pa.concat_tables(refused)
        if rows.num_rows or bad.num_rows:
            report.staged.append(stage(self.storage, join(self.uri, STAGING, f"events-{name}"), rows, self.num_buckets))
        if bad.num_rows:
            self.storage.write_table(join(self.uri, QUARANTINE, f"{READ}{name}"), bad)
        del events[1:], refused[1:]


@dataclass(frozen=True)
class SettlePass:
    """Events of a bucket -> histories of its users, items still by id."""

    storage: Storage
    uri: str
    rules: UserRules

    def __call__(self, work: BucketWork) -> BucketReport:
        """Write the histories and the counts of items, and quarantine duplicates, returns and robots."""
        bucket = settle(gather(self.storage, work.parts, EVENTS_SCHEMA), self.rules)
        self.storage.write_table(users_uri(self.uri, work.number), bucket.sequences)
        self.storage.write_table(counts_uri(self.uri, work.number), bucket.items)
        if bucket.refused.num_rows:
            name = f"part-users-{work.number:05d}.parquet"
            self.storage.write_table(join(self.uri, QUARANTINE, name), bucket.refused)
        return BucketReport(
            reasons=dict(tally(bucket.refused)), events=dict(bucket.events), capped_users=bucket.capped_users
        )


@dataclass(frozen=True)
class EncodePass:
    """Histories with ids -> histories with item indices, in their final place."""

    storage: Storage
    uri: str
    user_type: pa.DataType

    def __call__(self, work: BucketWork) -> PartReport:
        """Write one part of the sequences."""
        ids = self.storage.read_table(join(self.uri, ITEMS), columns=[Col.ITEM])[Col.ITEM].combine_chunks()
        histories = self.storage.read_table(users_uri(self.uri, work.number))
        sequences, unknown = encode(histories, ids, sequences_schema(self.user_type))
        path = f"sequences/part-{work.number:05d}.parquet"
        self.storage.write_table(join(self.uri, path), sequences)
        train = sequences[Col.NUM_TRAIN].to_numpy().astype(np.int64)
        targets = int(np.maximum(train - 1, 0).sum())
        part = Part(path=path, users=sequences.num_rows, train_events=int(train.sum()), train_targets=targets)
        return PartReport(part=part, unknown_item_events=unknown)


def users_uri(uri: str, bucket: int) -> str:
    """Histories of a bucket, items by id."""
    return join(uri, STAGING, f"users-{bucket:05d}.parquet")


def counts_uri(uri: str, bucket: int) -> str:
    """Items of a bucket with their counts."""
    return join(uri, STAGING, f"items-{bucket:05d}.parquet")
