"""What the passes report, added up: counts, types, notes, and the checks that stop a log that cannot be trusted."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ray_app.data.catalog import Catalog
from ray_app.data.dataset import CatalogCounts, Counts, IdTypes, SourceRecord
from ray_app.data.passes import BucketReport, ChunkReport, PartReport
from ray_app.data.quarantine import EXPECTED, reasons_table
from ray_app.data.sources import Source
from ray_app.data.split import TEST, TRAIN, VALIDATION, Split, show_time
from ray_app.data.times import is_day_first
from ray_app.errors import DataError
from ray_app.schema import Col


def rows_in(chunks: Sequence[ChunkReport]) -> int:
    """Rows of all files, as far as they could be counted."""
    return sum(sum(report.rows.values()) for report in chunks)


def reasons(reports: Sequence[ChunkReport | BucketReport]) -> Counter[str]:
    """Refused rows by reason."""
    return sum((Counter(report.reasons) for report in reports), Counter[str]())


def day_first(chunks: Sequence[ChunkReport]) -> bool:
    """Whether dates like 1/12/2010 put the day first."""
    return is_day_first(places for report in chunks for places in report.day_places)


def last_time(chunks: Sequence[ChunkReport]) -> int:
    """Time of the last purchase (or other event that is no return).

    Raises:
        DataError: there is none.
    """
    times = [report.last for report in chunks if report.last is not None]
    if not times:
        raise DataError("the log has no event: every file is empty or all its rows are returns")
    return max(times)


def check_share(
    what: str, refused: Mapping[str, int], rows: int, lost_bytes: float, limit: float, quarantine: str
) -> None:
    """Stop when more was refused than `data.max_quarantined_fraction` allows; returns and robots are no fault.

    Args:
        what: the log or the catalogue.
        refused: rows by reason.
        rows: rows in all.
        lost_bytes: share of the bytes that lie in files which could not be read, whose rows nobody can count.
        limit: the fraction allowed.
        quarantine: where the refused rows were written.

    Raises:
        DataError: a table of the reasons.
    """
    faulty = sum(count for reason, count in refused.items() if reason not in EXPECTED)
    share = max(faulty / max(rows, 1), lost_bytes)
    if share > limit:
        unread = f"; files with {lost_bytes:.1%} of the bytes could not be read" if lost_bytes else ""
        table = f"\n{reasons_table(refused)}" if refused else ""
        raise DataError(
            f"{what}: {faulty:,} of {rows:,} rows were refused{unread}, more than data.max_quarantined_fraction "
            f"({limit:g}) allows:{table}\nThe rows and their reasons are in {quarantine}"
        )


def check_parts(settled: Sequence[BucketReport], split: Split) -> None:
    """Stop when nothing is left to train on.

    Raises:
        DataError: says where the cutoffs lie and what to change.
    """
    events = sum((Counter(report.events) for report in settled), Counter[int]())
    if events[TRAIN]:
        return
    if split.validation_start is None:
        raise DataError("no event is left to train on")
    raise DataError(
        f"no event lies before the first cutoff, {show_time(split.validation_start)}, so there is nothing to train on: "
        "lower data.split.validation_days and data.split.test_days, or set the cutoffs outright"
    )


def id_types(chunks: Sequence[ChunkReport], catalog: Catalog | None) -> tuple[IdTypes, list[str]]:
    """Integers where every file has integers, otherwise text; and notes on files that differ."""
    notes = []
    kinds: list[str] = []
    for place, name in enumerate((Col.USER, Col.ITEM)):
        by_source: dict[int, bool] = {}
        for report in chunks:
            for source, integers in report.integers.items():
                by_source[source] = by_source.get(source, True) and integers[place]
        found = list(by_source.values())
        if name == Col.ITEM and catalog is not None and catalog.table.num_rows:
            found.append(catalog.integers)
        if any(found) and not all(found):
            notes.append(f"{name}: integers in some files, text in others; all were read as text.")
        kinds.append("int64" if all(found) else "string")
    return IdTypes.model_validate({"user_id": kinds[0], "item_id": kinds[1]}), notes


def source_records(sources: Sequence[Source], chunks: Sequence[ChunkReport]) -> list[SourceRecord]:
    """Every file with the number of rows found in it."""
    rows: Counter[int] = Counter()
    for report in chunks:
        rows.update(report.rows)
    return [
        SourceRecord(uri=entry.uri, size=entry.size, etag=entry.etag, rows=None if source.problem else rows[number])
        for number, source in enumerate(sources)
        for entry in [source.entry]
    ]


def counts(
    chunks: Sequence[ChunkReport], settled: Sequence[BucketReport], parts: Sequence[PartReport], num_items: int
) -> Counts:
    """Where every row went; it is an error of ours if that does not add up."""
    refused = reasons([*chunks, *settled])
    events = sum((Counter(report.events) for report in settled), Counter[int]())
    total = rows_in(chunks)
    assert total == events.total() + refused.total(), (total, events, refused)
    assert events[TRAIN] == sum(report.part.train_events for report in parts)
    return Counts(
        rows_in=total,
        rows_kept=events.total(),
        rows_quarantined=refused.total(),
        quarantined=dict(refused.most_common()),
        users=sum(report.part.users for report in parts),
        items=num_items,
        train_events=events[TRAIN],
        validation_events=events[VALIDATION],
        test_events=events[TEST],
        unknown_item_events=sum(report.unknown_item_events for report in parts),
    )


def catalog_counts(catalog: Catalog | None, refused: Mapping[str, int]) -> CatalogCounts | None:
    """Where every row of the catalogue went."""
    if catalog is None:
        return None
    kept = catalog.table.num_rows
    assert catalog.rows_in == kept + sum(refused.values())
    return CatalogCounts(rows_in=catalog.rows_in, rows_kept=kept, quarantined=dict(refused))


def notes(
    sources: Sequence[Source],
    chunks: Sequence[ChunkReport],
    settled: Sequence[BucketReport],
    catalog: Catalog | None,
    items: pa.Table,
    held_out: Counts,
) -> list[str]:
    """What a person should know about the data and what was decided on the way."""
    said = [
        f"{source.entry.uri}: not read, its rows are not counted: {source.problem}"
        for source in sources
        if source.problem
    ]
    broken = sorted({number for report in chunks for number in report.unreadable})
    said += [f"{sources[number].entry.uri}: breaks off; rows after the break are not counted." for number in broken]
    if day_first(chunks):
        said.append("Dates were read with the day first: 1/12/2010 is in December.")
    if capped := sum(report.capped_users for report in settled):
        said.append(f"{capped:,} users have more events than data.max_user_events in a part; the oldest were left out.")
    if catalog is not None and catalog.unread:
        said.append(f"The catalogue has {catalog.unread:,} prices or dates that are none; they were left out.")
    if catalog is not None:
        known = pc.is_in(items[Col.ITEM].cast(pa.string()), catalog.table[Col.ITEM])
        if missing := len(known) - (pc.sum(known).as_py() or 0):
            said.append(f"Items of the log that are not in the catalogue: {missing:,}.")
    said += [
        f"No event lies in the {part} part."
        for part, events in (("validation", held_out.validation_events), ("test", held_out.test_events))
        if not events
    ]
    return said
