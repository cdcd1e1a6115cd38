"""What became of every picture or text, added up, and the check that stops a set that cannot be trusted."""

from collections import Counter
from collections.abc import Collection, Sequence

from ray_app.data.accounts import check_share
from ray_app.data.dataset import SourceRecord
from ray_app.data.picture_passes import PART_NAMES, PictureReport, WriteReport
from ray_app.data.picture_set import Kind, PictureCounts
from ray_app.data.picture_sources import Sources
from ray_app.data.picture_work import Plan
from ray_app.data.quarantine import tally
from ray_app.data.sources import Source


def reasons(plan: Plan, reports: Sequence[PictureReport | WriteReport]) -> Counter[str]:
    """Refused pictures by reason."""
    return sum((Counter(report.reasons) for report in reports), tally(plan.refused))


def pictures_in(plan: Plan, read: Sequence[PictureReport]) -> int:
    """Pictures that came in, as far as they could be counted."""
    return sum(count for report in read for _, count in report.staged) + reasons(plan, read).total()


def check(
    refused: Counter[str],
    total: int,
    tables: Sequence[Source],
    broken: Collection[int],
    limit: float,
    quarantine: str,
    kind: Kind,
) -> None:
    """Stop when more was refused than `data.max_quarantined_fraction` allows.

    Raises:
        DataError: a table of the reasons.
    """
    lost = sum(table.entry.size for number, table in enumerate(tables) if table.problem or number in broken)
    share = lost / max(1, sum(table.entry.size for table in tables))
    check_share(f"the {kind}", refused, total, share, limit, quarantine)


def counts(plan: Plan, read: Sequence[PictureReport], written: Sequence[WriteReport]) -> PictureCounts:
    """Where every picture went; it is an error of ours if that does not add up."""
    refused = reasons(plan, [*read, *written])
    kept = Counter[str]()
    for file in (file for report in written for file in report.files):
        kept[file.part] += file.pictures
    total = pictures_in(plan, read)
    assert total == kept.total() + refused.total(), (total, kept, refused)
    parts = {name: kept[name] for name in PART_NAMES}
    return PictureCounts(pictures_in=total, **parts, quarantined=dict(refused.most_common()))


def source_records(sources: Sources, tables: Sequence[Source], plan: Plan) -> list[SourceRecord]:
    """Every table with the number of its rows, and the pictures of a folder as one."""
    rows = [None if table.problem else plan.rows[number] for number, table in enumerate(tables)]
    entries = [table.entry for table in tables]
    return sources.folders + [
        SourceRecord(uri=entry.uri, size=entry.size, etag=entry.etag, rows=count)
        for entry, count in zip(entries, rows, strict=True)
    ]


def notes(tables: Sequence[Source], broken: Collection[int]) -> list[str]:
    """Tables that were not read to their end."""
    said = [
        f"{table.entry.uri}: not read, its rows are not counted: {table.problem}" for table in tables if table.problem
    ]
    return said + [
        f"{tables[number].entry.uri}: breaks off; rows after the break are not counted." for number in broken
    ]
