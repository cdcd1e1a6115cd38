"""The stages of a recommender, from a log: what `stages` asks where task.kind is recommend."""

from pathlib import Path

from runs import bars, console, say, train
from sampling import data_curve_stage, strategies_of
from searching import check_search, tuned_run

from ray_app.checkpoint import MANIFEST_FILE, read_manifest
from ray_app.config import Config
from ray_app.content.features import with_content
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.data.union import unite
from ray_app.errors import DataError
from ray_app.evidence.item_index import INDEX_FILE, ItemIndex
from ray_app.report import Evidence, examples_table, write_report
from ray_app.schedule import Schedule
from ray_app.storage import Storage, join
from ray_app.tasks.examples import pick_examples
from ray_app.tasks.hybrid_fit import fit_hybrid, hybrid_uri
from ray_app.tasks.predictions import predict, predictions_uri
from ray_app.tasks.ranking import evaluate
from ray_app.tasks.recommend import METRIC
from ray_app.tasks.together import together_uri, write_together
from ray_app.training.run import Run
from ray_app.uri import scheme


def target_dataset(config: Config) -> Dataset:
    """The prepared target: a log, or pictures where the task is to classify them."""
    with bars("prepare") as progress:
        dataset = prepare(Storage.from_config(config.storage), config.name, config.data, progress)
    counts = dataset.manifest.counts
    say("prepare", f"{counts.rows_kept:,} of {counts.rows_in:,} rows, {counts.users:,} users in", dataset.uri)
    return described(config, dataset)


def described(config: Config, dataset: Dataset) -> Dataset:
    """The dataset with what is read of its items, where content is configured."""
    if config.content is None:
        return dataset
    noted = len(dataset.manifest.notes)
    with bars("content") as progress:
        dataset = with_content(dataset, config.content, config.train, progress)
    read = {"texts": dataset.features, "pictures": dataset.picture_features}
    for what, uri in ((what, uri) for what, uri in read.items() if uri):
        say("content", f"{what} of {dataset.num_items:,} items in", uri)
    for note in dataset.manifest.notes[noted:]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    return dataset


def source_dataset(config: Config, target: Dataset) -> Dataset:
    """The prepared source logs as one, which may know nothing that lies past the target's cutoff.

    Raises:
        DataError: a source's train or validation part reaches beyond the target's.
    """
    assert config.pretrain is not None
    sources = []
    for data in (config.pretrain.data, *config.pretrain.more):
        with bars("prepare the source") as progress:
            settings = data.divided_by(target.manifest.cutoffs.split())
            source = prepare(target.storage, config.name, settings, progress)
        if _reaches_past(source.manifest.cutoffs.model_dump(), target):
            raise DataError(
                "pretraining would see events past the target's cutoffs: leave pretrain.data.split out, which "
                "is then that of data, or give it validation_start and test_start no later than those"
            )
        sources.append(source)
    return described(config, unite(config.name, sources, config.pretrain.temperature, config.train))


def _reaches_past(cutoffs: dict[str, int | None], target: Dataset) -> bool:
    """Whether parts that end at `cutoffs` hold events past those of the target; None ends at the last event."""
    ends = target.manifest.cutoffs.model_dump()
    return any(end is not None and ((own := cutoffs[name]) is None or own > end) for name, end in ends.items())


def pretrain_run(config: Config, target: Dataset) -> Run:
    """Train on the source log from random weights."""
    assert config.pretrain is not None
    return Run("pretrain", config, config.pretrain.schedule, source_dataset(config, target))


def finetune_run(config: Config, target: Dataset) -> Run:
    """Fine-tune from `model.start_from`, else from the pretrained model; without either, train from scratch.

    With `tune`, by the schedule that a search finds.

    Raises:
        DataError: the checkpoint was trained on events past the target's cutoffs.
    """
    if config.tune is not None:
        check_search(config)
    if config.data_curve is not None:
        strategies_of(config)
    start = config.model.start_from
    if start is not None and scheme(start) == "file":
        start = target.storage.filesystem(start)[1]  # absolute: workers have a working directory of their own
    if start is not None:
        cutoffs = read_manifest(target.storage, start).get("cutoffs")  # checkpoints of other programs have none
        if cutoffs is not None and _reaches_past(cutoffs, target):
            raise DataError(
                f"{start}: was trained on events past the target's cutoffs, so that its test results would be too "
                "good: name an earlier checkpoint in model.start_from, or give data.split later cutoffs"
            )
    if start is None and config.pretrain is not None:
        start = train(pretrain_run(config, target))
    if config.tune is not None:
        return tuned_run(config, target, start, console)
    if start is not None:
        return Run("finetune", config, config.schedule, target, start)
    if config.schedule != Schedule():
        note = "note: without pretrain and model.start_from, evaluate.scratch_schedule is used, and not schedule"
        console.print(note, highlight=False, soft_wrap=True)
    return scratch_run(config, target)


def scratch_run(config: Config, target: Dataset) -> Run:
    """The same model on the target alone: what fine-tuning must beat."""
    return Run("scratch", config, config.evaluate.scratch_schedule, target)


def earlier_runs(config: Config, target: Dataset) -> dict[str, Run]:
    """What fine-tuning began with, where this pipeline trained it."""
    if config.pretrain is None or config.model.start_from is not None:
        return {}
    return {"pretrained": pretrain_run(config, target)}


def main_model(config: Config, target: Dataset, run: Run) -> str:
    """What is recommended with: the hybrid around a published run where a ranker is configured, else its model."""
    if config.ranker is None:
        return run.uri
    uri = hybrid_uri(target, run.uri, config)
    verb = "found" if target.storage.exists(join(uri, MANIFEST_FILE)) else "wrote"
    with bars("rank") as progress:
        facts = fit_hybrid(target, run.uri, config, progress)
    learned = f"{facts['trees']:.0f} trees from {facts['users']:,.0f} users"
    say("rank", f"{learned}, {METRIC} {facts[f'held_out_{METRIC}']:.4f} of those held out; {verb}", uri)
    return uri


def show_examples(config: Config, target: Dataset, model_uri: str) -> None:
    """Five users, what they bought and what is recommended."""
    console.print(examples_table(pick_examples(target.storage, target, model_uri, config)))


def evaluation(
    config: Config, target: Dataset, runs: dict[str, Run], models: dict[str, str]
) -> tuple[dict[str, object], str]:
    """What `metrics.json` holds, and the page about it."""
    with bars("evaluate") as progress:
        metrics = evaluate(target.storage, target, models, config, progress)
    main_uri = next(iter(models.values()))
    manifest = read_manifest(target.storage, main_uri)
    evidence = Evidence(
        config=config,
        data=target.manifest,
        metrics=metrics,
        records={name: run.records() for name, run in runs.items()},
        examples=pick_examples(target.storage, target, main_uri, config),
        curve=_curve(config, target, next(iter(runs.values()))) if config.data_curve is not None else None,
        versions={**manifest["versions"], "git commit": manifest["git_commit"]},
    )
    return metrics, write_report(evidence)


def _curve(config: Config, target: Dataset, run: Run) -> dict[str, object]:
    return data_curve_stage(config.model_copy(update={"tune": None}), target, run.start_from)


def add_files(target: Dataset, folder: Path) -> None:
    """What the service needs beside the model: the evidence of the log."""
    ItemIndex.fit(target).save(folder / INDEX_FILE)


def predict_stage(config: Config, target: Dataset, model_uri: str) -> str:
    """Top-k lists of every user, or labels of every test picture; the URI of their folder."""
    uri = predictions_uri(target.storage, target, model_uri, config)
    with bars("predict") as progress:
        counts = predict(target.storage, target, model_uri, config, uri, progress)
    say("predict", f"{counts['users']:,} users in", uri)
    if config.predict.together:
        facts = write_together(target, config)
        say("together", f"{facts['items']:,} items of {facts['orders']:,} orders in", together_uri(target, config))
    return uri
