"""Labelled pictures or texts -> a prepared set, in two passes by Ray Data; done before, it is found again.

1. read: every picture is decoded and brought into one form, what is none is quarantined;
2. write: the set is divided by labels and hashes, and every picture written to its part.

Memory holds a few hundred pictures, or some thousand texts, per task, and of the set its labels and hashes. The
manifest is written last.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
from rich.progress import Progress

from ray_app.config import Config, dump, fingerprint
from ray_app.data import picture_accounts as accounts
from ray_app.data.dataset import MANIFEST, open_manifest
from ray_app.data.passes import QUARANTINE, READ, STAGING
from ray_app.data.picture_passes import (
    PictureChunk,
    PictureReport,
    ReadPictures,
    WritePictures,
    WriteReport,
    WriteWork,
)
from ray_app.data.picture_set import PictureManifest, PictureSet
from ray_app.data.picture_sources import find_pictures, find_tables
from ray_app.data.picture_split import INDEX_SCHEMA, Division, divide
from ray_app.data.picture_work import make_plan
from ray_app.data.sources import check_columns, inspect
from ray_app.data.split import TRAIN
from ray_app.data.streaming import run_pass
from ray_app.errors import DataError
from ray_app.schema import SCHEMA_VERSION
from ray_app.storage import Storage, join

_READS_AT_ONCE = 16
_REQUIRED = {"pictures": ("image", "label"), "texts": ("title", "label")}


def prepare_pictures(storage: Storage, name: str, config: Config, progress: Progress | None = None) -> PictureSet:
    """The set behind `data.events`, read as `pictures` or `texts` says; found if it was prepared before.

    Files that a table names are not listed: a picture that changed under its path is noticed when its table changes.

    Raises:
        DataError: no pictures or texts, a column that no file has, too much in quarantine, nothing to tell apart.
        StorageError: something cannot be read or written.
    """
    settings, data = config.pictures or config.texts, config.data
    assert settings is not None
    task = ReadPictures(storage, "", settings)
    kind = task.kind
    sources = (find_pictures if kind == "pictures" else find_tables)(storage, data)
    sections = {kind: dump(settings), "data": {"events": list(data.events), "format": data.format}}
    key = fingerprint(SCHEMA_VERSION, sections, data.max_quarantined_fraction, [list(file) for file in sources.entries])
    uri = join(storage.root(name), "datasets", key)
    if storage.exists(join(uri, MANIFEST)):
        return open_pictures(storage, uri)
    storage.delete_tree(uri)
    tables = inspect(storage, sources.tables, ())
    notes = sources.notes + check_columns(tables, settings.columns, f"{kind}.columns", _REQUIRED[kind])
    plan = make_plan(storage, sources, tables, settings.columns)
    quarantine = join(uri, QUARANTINE)
    if plan.refused.num_rows:
        storage.write_table(join(quarantine, f"{READ}tables.parquet"), plan.refused)
    read = run_pass(replace(task, uri=uri), plan.chunks, (PictureChunk, PictureReport), "reading", progress)
    broken = sorted(plan.broken.union(*(report.unreadable for report in read)))
    total, limit = accounts.pictures_in(plan, read), data.max_quarantined_fraction
    accounts.check(accounts.reasons(plan, read), total, tables, broken, limit, quarantine, kind)
    for report in read:
        plan.rows.update(report.lines)
    staged = sorted(file for report in read for file in report.staged)
    if not staged:
        raise DataError(f"{', '.join(data.events)}: there is no {kind[:-1]} in it, or only such as were refused")
    division = divide(_index(storage, [uri for uri, _ in staged]), settings)
    work = _written(staged, division)
    written = run_pass(WritePictures(storage, uri, kind), work, (WriteWork, WriteReport), "writing", progress)
    refused = accounts.reasons(plan, [*read, *written])
    accounts.check(refused, total, tables, broken, limit, quarantine, kind)
    storage.delete_tree(join(uri, STAGING))
    manifest = PictureManifest(
        schema_version=SCHEMA_VERSION,
        fingerprint=key,
        kind=kind,
        pictures=sections,
        sources=accounts.source_records(sources, tables, plan),
        counts=accounts.counts(plan, read, written),
        classes=division.classes,
        groups=division.groups,
        group_of_class=division.group_of_class,
        train_counts=division.counts(TRAIN).tolist(),
        notes=notes + accounts.notes(tables, broken) + division.notes,
        files=sorted((file for report in written for file in report.files), key=lambda file: file.path),
    )
    storage.write_bytes(join(uri, MANIFEST), manifest.model_dump_json(indent=1).encode())
    return PictureSet(storage, uri, manifest)


def open_pictures(storage: Storage, uri: str) -> PictureSet:
    """A set that was prepared before; raises as `dataset.open_dataset`."""
    return PictureSet(storage, uri, open_manifest(storage, uri, PictureManifest))


def _index(storage: Storage, staged: list[str]) -> pa.Table:
    """Labels and hashes of all pictures."""
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        return pa.concat_tables(pool.map(lambda uri: storage.read_table(uri, INDEX_SCHEMA.names), staged))


def _written(staged: list[tuple[str, int]], division: Division) -> list[WriteWork]:
    """For each staged file, what was decided of its pictures."""
    work, start = list[WriteWork](), 0
    for number, (uri, count) in enumerate(staged):
        part, label = (values[start : start + count].tolist() for values in (division.part, division.label))
        work.append(WriteWork(number=number, staged=uri, part=part, label=label))
        start += count
    return work
