"""Labelled pictures -> a prepared set, in two passes by Ray Data; done before, it is found and nothing is repeated.

1. read: every picture is decoded and brought into one form, what is none is quarantined;
2. write: the set is divided by labels and hashes, and every picture written to its part.

Memory holds a few hundred pictures per task, and of the set its labels and hashes. The manifest is written last.
"""

from concurrent.futures import ThreadPoolExecutor

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
from ray_app.data.picture_sources import find_pictures
from ray_app.data.picture_split import INDEX_SCHEMA, Division, divide
from ray_app.data.picture_work import make_plan
from ray_app.data.sources import check_columns, inspect
from ray_app.data.split import TRAIN
from ray_app.data.streaming import run_pass
from ray_app.errors import DataError
from ray_app.schema import SCHEMA_VERSION
from ray_app.storage import Storage, join

_READS_AT_ONCE = 16


def prepare_pictures(storage: Storage, name: str, config: Config, progress: Progress | None = None) -> PictureSet:
    """The set behind `data.events`, read as `pictures` says; found if it was prepared before.

    Files that a table names are not listed: a picture that changed under its path is noticed when its table changes.

    Raises:
        DataError: no pictures, a column that no file has, too much in quarantine, nothing to tell apart.
        StorageError: something cannot be read or written.
    """
    settings, data = config.pictures, config.data
    assert settings is not None
    sources = find_pictures(storage, data)
    sections = {"pictures": dump(settings), "data": {"events": list(data.events), "format": data.format}}
    key = fingerprint(SCHEMA_VERSION, sections, data.max_quarantined_fraction, [list(file) for file in sources.entries])
    uri = join(storage.root(name), "datasets", key)
    if storage.exists(join(uri, MANIFEST)):
        return open_pictures(storage, uri)
    storage.delete_tree(uri)
    tables = inspect(storage, sources.tables, ())
    notes = sources.notes + check_columns(tables, settings.columns, "pictures.columns", ("image", "label"))
    plan = make_plan(storage, sources, tables, settings.columns)
    quarantine = join(uri, QUARANTINE)
    if plan.refused.num_rows:
        storage.write_table(join(quarantine, f"{READ}tables.parquet"), plan.refused)
    task = ReadPictures(storage, uri, settings)
    read = run_pass(task, plan.chunks, (PictureChunk, PictureReport), "reading", progress)
    broken = sorted(plan.broken.union(*(report.unreadable for report in read)))
    total, limit = accounts.pictures_in(plan, read), data.max_quarantined_fraction
    accounts.check(accounts.reasons(plan, read), total, tables, broken, limit, quarantine)
    staged = sorted(file for report in read for file in report.staged)
    if not staged:
        raise DataError(f"{', '.join(data.events)}: there is no picture in it, or only such as were refused")
    division = divide(_index(storage, [uri for uri, _ in staged]), settings)
    work = _written(staged, division)
    written = run_pass(WritePictures(storage, uri), work, (WriteWork, WriteReport), "writing", progress)
    accounts.check(accounts.reasons(plan, [*read, *written]), total, tables, broken, limit, quarantine)
    storage.delete_tree(join(uri, STAGING))
    manifest = PictureManifest(
        schema_version=SCHEMA_VERSION,
        fingerprint=key,
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
