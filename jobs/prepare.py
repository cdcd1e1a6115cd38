"""Read raw logs, quarantine what is no event, split, and write the dataset that all later stages read.

    python jobs/prepare.py --config jobs/configs/online_retail.yaml [key=value ...]
    python jobs/prepare.py data.format=movielens_20m data.events=FOLDER    # public data in one command

A second run finds what the first one wrote. With a `pretrain` section, its log is prepared as well. With `task.kind:
classify` it reads labelled pictures, of folders or tables, or labelled texts of tables.
"""

from door import run
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ray_app.config import Config
from ray_app.content.features import with_content
from ray_app.data.dataset import Dataset
from ray_app.data.picture_set import PictureSet
from ray_app.data.prepare import prepare
from ray_app.data.quarantine import MEANING, Reason
from ray_app.data.split import show_time
from ray_app.data_config import SourceConfig
from ray_app.storage import Storage


def main(config: Config) -> None:
    console, storage = Console(), Storage.from_config(config.storage)
    if config.task.kind == "classify":
        from picture_stages import target_dataset  # noqa: PLC0415 (seconds, for logs alone)

        console.print(picture_summary(target_dataset(config)))
        return
    sources = (config.pretrain.data, *config.pretrain.more) if config.pretrain else ()
    split = config.data.split
    for role, log in (("target", config.data), *(("pretrain", source) for source in sources)):
        data = log.divided_by(split) if isinstance(log, SourceConfig) else log
        columns = (TextColumn(f"{role}: {{task.description}}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            dataset = prepare(storage, config.name, data, progress)
            dataset = with_content(dataset, config.content, config.train, progress)
        split = dataset.manifest.cutoffs.split() if role == "target" else split
        console.print(summary(role, dataset))
        for note in dataset.manifest.notes:
            console.print(f"note: {note}", highlight=False)


def picture_summary(pictures: PictureSet) -> Table:
    counts, manifest = pictures.manifest.counts, pictures.manifest
    table = Table("", "count", "", title=f"target: {pictures.uri}", title_justify="left")
    table.columns[1].justify = "right"
    table.add_row(f"{manifest.kind} in", f"{counts.pictures_in:,}", f"{len(manifest.sources)} sources")
    for reason, count in counts.quarantined.items():
        table.add_row(f"  {reason}", f"{count:,}", MEANING[Reason(reason)])
    table.add_section()
    table.add_row("classes", f"{pictures.num_classes:,}", f"{len(manifest.groups):,} groups" if manifest.groups else "")
    fewest, most = min(manifest.train_counts), max(manifest.train_counts)
    table.add_row("to train", f"{counts.train:,}", f"{fewest:,} to {most:,} of each class")
    table.add_row("to validate", f"{counts.validation:,}")
    table.add_row("to test", f"{counts.test:,}")
    return table


def summary(role: str, dataset: Dataset) -> Table:
    counts, cutoffs = dataset.manifest.counts, dataset.manifest.cutoffs
    table = Table("", "count", "", title=f"{role}: {dataset.uri}", title_justify="left")
    table.columns[1].justify = "right"
    table.add_row("rows in", f"{counts.rows_in:,}", f"{len(dataset.manifest.sources)} files")
    table.add_row("rows kept", f"{counts.rows_kept:,}")
    for reason, count in counts.quarantined.items():
        table.add_row(f"  {reason}", f"{count:,}", MEANING[Reason(reason)])
    table.add_section()
    table.add_row("users", f"{counts.users:,}", f"ids {dataset.user_type}")
    table.add_row("items", f"{counts.items:,}", f"ids {dataset.item_type}")
    starts = [f"from {show_time(us)} UTC" if us is not None else "" for us in cutoffs.model_dump().values()]
    table.add_row("train events", f"{counts.train_events:,}")
    table.add_row("validation events", f"{counts.validation_events:,}", starts[0] or "second-last event of each user")
    table.add_row("test events", f"{counts.test_events:,}", starts[1] or "last event of each user")
    table.add_row("held out, item unknown", f"{counts.unknown_item_events:,}", "not in the vocabulary")
    return table


if __name__ == "__main__":
    run(__doc__, main)
