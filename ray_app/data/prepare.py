"""Raw logs -> a prepared dataset, in three passes over the data; done before, it is found and nothing is repeated.

1. read: files are parsed, what is no event is quarantined, events are staged by bucket of users;
2. settle: in each bucket duplicates and returns are taken out, events put in order and split, items counted;
3. encode: item ids become indices of the vocabulary, which saw nothing past the first cutoff.

Memory holds a bucket per task, never the log. The manifest is written last, so that a dataset is complete or absent.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow as pa
from rich.progress import Progress

from ray_app.config import dump
from ray_app.data import accounts, passes
from ray_app.data.catalog import Catalog, read_catalog
from ray_app.data.dataset import (
    ITEMS,
    MANIFEST,
    Cutoffs,
    Dataset,
    IdTypes,
    Manifest,
    dataset_fingerprint,
    dataset_uri,
    open_dataset,
)
from ray_app.data.layouts import laid_out, layout_of
from ray_app.data.logs import LogRules
from ray_app.data.passes import BucketReport, BucketWork, Chunk, ChunkReport, PartReport
from ray_app.data.quarantine import Reason, refuse, tally
from ray_app.data.raw_files import find_catalog, find_sources
from ray_app.data.sources import Source, check_columns, columns_of, cut, inspect
from ray_app.data.split import Split, check_split, make_split
from ray_app.data.streaming import run_pass
from ray_app.data.times import is_day_first
from ray_app.data.users import UserRules
from ray_app.data.vocabulary import make_vocabulary
from ray_app.data_config import DataConfig
from ray_app.schema import SCHEMA_VERSION, Col
from ray_app.storage import Storage, join

MIN_PARTS = 16
"""Files of sequences, at least: so many workers get an equal share each."""


def prepare(storage: Storage, name: str, data: DataConfig, progress: Progress | None = None) -> Dataset:
    """The dataset of a log, found if it was prepared before.

    One job at a time prepares a dataset. Killed in the middle, it leaves nothing that counts, and the next run starts
    over.

    Raises:
        DataError: no files, a column that no file has, too much in quarantine, nothing to train on.
        StorageError: something cannot be read or written.
    """
    check_split(data)
    files = find_sources(storage, data.events, data.format, "data.events")
    catalog_files = find_catalog(storage, data.items, data.format, files)
    entries = [file.entry for file in (*files, *catalog_files)]
    uri = dataset_uri(storage, name, data, entries)
    if storage.exists(join(uri, MANIFEST)):
        return open_dataset(storage, uri)
    storage.delete_tree(uri)
    layout, asked = layout_of(data.format), data
    sources = inspect(storage, files, (data.columns.timestamp, *layout.events.names.get(Col.TIME, ())))
    catalog_sources = inspect(storage, catalog_files, (data.item_columns.available_from,))
    data = laid_out(data, columns_of(sources), columns_of(catalog_sources))
    required = (Col.USER, Col.ITEM, Col.TIME, *((Col.RATING,) if data.min_rating is not None else ()))
    notes = check_columns(sources, data.columns, "data.columns", required, layout.events.names)
    notes += check_columns(catalog_sources, data.item_columns, "data.item_columns", (Col.ITEM,), layout.items.names)
    work = _Preparation(storage, uri, data, sources, progress)
    catalog = work.read_catalog(catalog_sources) if catalog_sources else None
    chunks, buckets = work.read()
    types, type_notes = accounts.id_types(chunks, catalog)
    split = make_split(data.split, accounts.last_time(chunks))
    settled = work.settle(buckets, split, types, chunks)
    items = work.write_items(buckets, catalog, split, types)
    parts = work.encode(buckets, types)
    storage.delete_tree(join(uri, passes.STAGING))
    counts = accounts.counts(chunks, settled, parts, items.num_rows)
    notes += type_notes + accounts.notes(sources, chunks, settled, catalog, items, counts)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint=dataset_fingerprint(asked, entries),
        data=dump(data),
        sources=accounts.source_records(sources, chunks),
        counts=counts,
        catalog=accounts.catalog_counts(catalog, tally(catalog.refused) if catalog else {}),
        id_types=types,
        cutoffs=Cutoffs(validation_start=split.validation_start, test_start=split.test_start),
        notes=notes,
        parts=[report.part for report in parts],
    )
    storage.write_bytes(join(uri, MANIFEST), manifest.model_dump_json(indent=1).encode())
    return Dataset(storage, uri, manifest)


@dataclass(frozen=True)
class _Preparation:
    """The passes over one log, each with the checks that follow it."""

    storage: Storage
    uri: str
    data: DataConfig
    sources: list[Source]
    progress: Progress | None

    def read_catalog(self, sources: list[Source]) -> Catalog:
        catalog = read_catalog(self.storage, sources, self.data)
        self._quarantine("part-catalog.parquet", [catalog.refused, *_unreadable(sources)])
        reasons = tally(catalog.refused)
        reasons.pop(Reason.DUPLICATE, None)  # an item described again, not a fault
        self._check("the catalogue", reasons, catalog.rows_in, sources, ())
        return catalog

    def read(self) -> tuple[list[ChunkReport], list[BucketWork]]:
        chunks = [Chunk(number=k, pieces=pieces) for k, pieces in enumerate(cut(self.sources, passes.ROWS_PER_CHUNK))]
        rows = sum(piece.num_rows for chunk in chunks for piece in chunk.pieces)
        num_buckets = max(MIN_PARTS, -(-rows // passes.ROWS_PER_CHUNK))
        self._quarantine("part-files.parquet", _unreadable(self.sources))
        day_first = is_day_first(source.day_places for source in self.sources)
        reports = self._read(chunks, num_buckets, day_first)
        if accounts.day_first(reports) != day_first:  # what the look into the files could not tell
            for file in self.storage.list_files(join(self.uri, passes.QUARANTINE, f"{passes.READ}*")):
                self.storage.delete_tree(file.uri)
            reports = self._read(chunks, num_buckets, not day_first)
        self._check_log(reports, [])
        return reports, _buckets(reports, num_buckets)

    def _read(self, chunks: list[Chunk], num_buckets: int, day_first: bool) -> list[ChunkReport]:
        task = passes.ReadPass(self.storage, self.uri, LogRules.of(self.data, day_first), num_buckets)
        return run_pass(task, chunks, (Chunk, ChunkReport), "reading", self.progress)

    def settle(
        self, buckets: list[BucketWork], split: Split, types: IdTypes, read: list[ChunkReport]
    ) -> list[BucketReport]:
        uris = [source.entry.uri for source in self.sources]
        rules = UserRules(split, types.user_type, types.item_type, self.data.max_user_events, uris)
        task = passes.SettlePass(self.storage, self.uri, rules)
        reports = run_pass(task, buckets, (BucketWork, BucketReport), "sorting", self.progress)
        self._check_log(read, reports)
        accounts.check_parts(reports, split)
        return reports

    def write_items(self, buckets: list[BucketWork], catalog: Catalog | None, split: Split, types: IdTypes) -> pa.Table:
        counted = (self.storage.read_table(passes.counts_uri(self.uri, bucket.number)) for bucket in buckets)
        known = split.kind == "temporal"  # the papers rank the items of the log alone
        items = make_vocabulary(counted, catalog.table if catalog else None, known, types.item_type)
        self.storage.write_table(join(self.uri, ITEMS), items)
        return items

    def encode(self, buckets: list[BucketWork], types: IdTypes) -> list[PartReport]:
        task = passes.EncodePass(self.storage, self.uri, types.user_type)
        reports = run_pass(task, buckets, (BucketWork, PartReport), "writing", self.progress)
        return sorted(reports, key=lambda report: report.part.path)

    def _check_log(self, read: list[ChunkReport], settled: list[BucketReport]) -> None:
        broken = {number for report in read for number in report.unreadable}
        reasons = accounts.reasons([*read, *settled])
        for expected in layout_of(self.data.format).expected:
            reasons.pop(expected, None)
        self._check("the log", reasons, accounts.rows_in(read), self.sources, broken)

    def _check(
        self, what: str, reasons: Mapping[str, int], rows: int, sources: list[Source], broken: Collection[int]
    ) -> None:
        lost = sum(s.entry.size for number, s in enumerate(sources) if s.problem or number in broken)
        share = lost / max(1, sum(source.entry.size for source in sources))
        quarantine = join(self.uri, passes.QUARANTINE)
        accounts.check_share(what, reasons, rows, share, self.data.max_quarantined_fraction, quarantine)

    def _quarantine(self, name: str, refused: list[pa.Table]) -> None:
        if sum(table.num_rows for table in refused):
            self.storage.write_table(join(self.uri, passes.QUARANTINE, name), pa.concat_tables(refused))


def _unreadable(sources: list[Source]) -> list[pa.Table]:
    return [refuse(s.entry.uri, None, Reason.UNREADABLE_FILE, [s.problem]) for s in sources if s.problem]


def _buckets(reports: list[ChunkReport], num_buckets: int) -> list[BucketWork]:
    """For each bucket, where its events are, in the order of the files."""
    work = [BucketWork(number=number) for number in range(num_buckets)]
    for file in sorted(file for report in reports for file in report.staged):
        for group, bucket in enumerate(file.buckets):
            work[bucket].parts.append((file.uri, group))
    return work
