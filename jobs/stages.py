"""The stages of the pipeline, each of which finds its own finished work and otherwise does it."""

import json
from pathlib import Path

from runs import bars, console, say, train
from searching import check_search, tuned_run

from ray_app.checkpoint import MANIFEST_FILE, read_manifest
from ray_app.config import Config, fingerprint
from ray_app.content.features import with_content
from ray_app.data.dataset import Dataset
from ray_app.data.picture_set import PictureSet
from ray_app.data.prepare import prepare
from ray_app.data.union import unite
from ray_app.errors import DataError
from ray_app.evidence.item_index import INDEX_FILE, ItemIndex
from ray_app.registry import METRICS_FILE, REPORT_FILE, Registry, Version
from ray_app.report import Evidence, examples_table, summary_table, write_report
from ray_app.schedule import Schedule
from ray_app.storage import Storage, join
from ray_app.tasks.examples import pick_examples
from ray_app.tasks.hybrid import fit_hybrid, hybrid_uri
from ray_app.tasks.predictions import predict, predictions_uri
from ray_app.tasks.ranking import evaluate
from ray_app.tasks.recommend import METRIC
from ray_app.tasks.together import together_uri, write_together
from ray_app.training.run import Run
from ray_app.uri import scheme

__all__ = ["console", "train"]
Target = Dataset | PictureSet
"""What is learned from: a log, or labelled pictures."""


def target_dataset(config: Config) -> Target:
    """The prepared target: a log, or pictures where the task is to classify them."""
    if config.task.kind == "classify":
        from picture_stages import picture_set  # noqa: PLC0415 (seconds, for jobs without pictures)

        return picture_set(config)
    with bars("prepare") as progress:
        dataset = prepare(Storage.from_config(config.storage), config.name, config.data, progress)
    counts = dataset.manifest.counts
    say("prepare", f"{counts.rows_kept:,} of {counts.rows_in:,} rows, {counts.users:,} users in", dataset.uri)
    return described(config, dataset)


def described(config: Config, dataset: Dataset) -> Dataset:
    """The dataset with the content vectors of its items, where content is configured."""
    if config.content is None:
        return dataset
    with bars("content") as progress:
        dataset = with_content(dataset, config.content, config.train, progress)
    say("content", f"texts of {dataset.num_items:,} items in", str(dataset.features))
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
            source = prepare(target.storage, config.name, data, progress)
        if _reaches_past(source.manifest.cutoffs.model_dump(), target):
            raise DataError(
                "pretraining would see events past the target's cutoffs: give pretrain.data.split the kind, "
                "validation_start and test_start of data.split, or earlier ones"
            )
        sources.append(source)
    return described(config, unite(config.name, sources, config.pretrain.temperature, config.train))


def _reaches_past(cutoffs: dict[str, int | None], target: Dataset) -> bool:
    """Whether parts that end at `cutoffs` hold events past those of the target; None ends at the last event."""
    ends = target.manifest.cutoffs.model_dump()
    return any(end is not None and ((own := cutoffs[name]) is None or own > end) for name, end in ends.items())


def pretrain_run(config: Config, target: Target) -> Run:
    """Train on the source log from random weights."""
    assert config.pretrain is not None
    assert isinstance(target, Dataset)
    return Run("pretrain", config, config.pretrain.schedule, source_dataset(config, target))


def finetune_run(config: Config, target: Target) -> Run:
    """Fine-tune from `model.start_from`, else from the pretrained model; without either, train from scratch.

    With `tune`, by the schedule that a search finds.

    Raises:
        DataError: the checkpoint was trained on events past the target's cutoffs.
    """
    if isinstance(target, PictureSet):
        from picture_stages import picture_run  # noqa: PLC0415 (seconds, for jobs without pictures)

        return picture_run(config, target)
    if config.tune is not None:
        check_search(config)
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


def scratch_run(config: Config, target: Target) -> Run:
    """The same model on the target alone: what fine-tuning must beat."""
    if isinstance(target, PictureSet):
        from picture_stages import picture_scratch_run  # noqa: PLC0415 (seconds, for jobs without pictures)

        return picture_scratch_run(config, target)
    return Run("scratch", config, config.evaluate.scratch_schedule, target)


def compared_runs(config: Config, target: Target) -> dict[str, Run]:
    """Published runs by their name in the results table; the main one first."""
    if isinstance(target, PictureSet):
        from picture_stages import compared_picture_runs  # noqa: PLC0415 (seconds, for jobs without pictures)

        return compared_picture_runs(config, target)
    main = finetune_run(config, target)
    runs = {"fine-tuned" if main.role == "finetune" else "scratch": main}
    if main.role == "finetune" and config.evaluate.scratch:
        runs["scratch"] = scratch_run(config, target)
    if main.role == "finetune" and config.pretrain is not None and config.model.start_from is None:
        runs["pretrained"] = pretrain_run(config, target)
    for run in runs.values():
        train(run)
    return runs


def main_model(config: Config, target: Target, run: Run) -> str:
    """What is recommended with: the hybrid around a published run where a ranker is configured, else its model."""
    if config.ranker is None or isinstance(target, PictureSet):
        return run.uri
    uri = hybrid_uri(target, run.uri, config)
    verb = "found" if target.storage.exists(join(uri, MANIFEST_FILE)) else "wrote"
    with bars("rank") as progress:
        facts = fit_hybrid(target, run.uri, config, progress)
    learned = f"{facts['trees']:.0f} trees from {facts['users']:,.0f} users"
    say("rank", f"{learned}, {METRIC} {facts[f'held_out_{METRIC}']:.4f} of those held out; {verb}", uri)
    return uri


def compared_models(config: Config, target: Target, runs: dict[str, Run]) -> dict[str, str]:
    """Published models by their name in the results table; the main one first."""
    main = next(iter(runs.values()))
    hybrid = {"hybrid": main_model(config, target, main)} if config.ranker else {}
    return hybrid | {name: run.uri for name, run in runs.items()}


def evaluate_stage(config: Config, target: Target, runs: dict[str, Run], models: dict[str, str]) -> str:
    """Compare the models with the baselines, write metrics and report, print the table; the URI of their folder."""
    storage = target.storage
    manifests = [storage.read_bytes(join(uri, MANIFEST_FILE)).decode() for uri in models.values()]
    key = fingerprint(target.manifest.fingerprint, config.evaluate, config.train.seed, list(models), manifests)
    folder = join(storage.root(config.name), "evaluations", key)
    metrics_uri = join(folder, METRICS_FILE)
    if storage.exists(metrics_uri):
        say("evaluate", "found", folder)
        metrics = json.loads(storage.read_bytes(metrics_uri))
    else:
        if isinstance(target, PictureSet):
            from picture_stages import picture_evaluation  # noqa: PLC0415 (seconds, for jobs without pictures)

            metrics, page = picture_evaluation(config, target, runs, models)
        else:
            metrics, page = _evaluation(config, target, runs, models)
        storage.write_bytes(join(folder, REPORT_FILE), page.encode())
        storage.write_bytes(metrics_uri, json.dumps(metrics, indent=1).encode())
        say("evaluate", "wrote", folder)
    console.print(summary_table(metrics))
    return folder


def show_examples(config: Config, target: Target, model_uri: str) -> None:
    """Five users, what they bought and what is recommended; or a few pictures and their labels."""
    if isinstance(target, PictureSet):
        from picture_stages import show_pictures  # noqa: PLC0415 (seconds, for jobs without pictures)

        show_pictures(config, target, model_uri)
        return
    console.print(examples_table(pick_examples(target.storage, target, model_uri, config)))


def _evaluation(
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
        versions={**manifest["versions"], "git commit": manifest["git_commit"]},
    )
    return metrics, write_report(evidence)


def register_stage(config: Config, target: Target, model_uri: str, evaluation_uri: str) -> Version:
    """Keep the main model of an evaluation with its evidence, where `jobs/promote.py` finds it."""
    storage = target.storage
    metrics, report = (storage.read_bytes(join(evaluation_uri, name)) for name in (METRICS_FILE, REPORT_FILE))

    def add_index(folder: Path) -> None:
        if isinstance(target, Dataset):  # a classifier knows its classes itself
            ItemIndex.fit(target).save(folder / INDEX_FILE)

    version = Registry(storage, config.name).register(model_uri, metrics, report, add_index)
    say("register", "version", version.uri)
    return version


def predict_stage(config: Config, target: Target, model_uri: str) -> str:
    """Top-k lists of every user, or labels of every test picture; the URI of their folder."""
    if isinstance(target, PictureSet):
        from picture_stages import label_stage  # noqa: PLC0415 (seconds, for jobs without pictures)

        return label_stage(config, target, model_uri)
    uri = predictions_uri(target.storage, target, model_uri, config)
    with bars("predict") as progress:
        counts = predict(target.storage, target, model_uri, config, uri, progress)
    say("predict", f"{counts['users']:,} users in", uri)
    if config.predict.together:
        facts = write_together(target, config)
        say("together", f"{facts['items']:,} items of {facts['orders']:,} orders in", together_uri(target, config))
    return uri
