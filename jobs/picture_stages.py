"""The stages of a classifier, from labelled pictures or texts: what `stages` asks where task.kind is classify."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from runs import bars, console, say
from searching import check_search, tuned_run

from ray_app.checkpoint import read_manifest
from ray_app.config import Config
from ray_app.content.candidates import Judgement, judge_all, with_candidate
from ray_app.content.picture_features import cached_features, compute
from ray_app.content.pretrained import settled
from ray_app.data.picture_set import PictureSet
from ray_app.data.pictures import prepare_pictures
from ray_app.errors import ConfigError
from ray_app.picture_config import Candidate
from ray_app.report.pictures import PictureEvidence, write_picture_report
from ray_app.storage import Storage
from ray_app.tasks.answers import answers_of
from ray_app.tasks.classification import evaluate_pictures
from ray_app.tasks.labels import labels_uri, predict_labels
from ray_app.tasks.outcomes import outcomes_of
from ray_app.tasks.picture_examples import PictureExample, pick_pictures
from ray_app.training.run import Run

OF_LOGS = ("content", "ranker", "pretrain")
"""Optional sections that a classifier has no use for."""
SHOWN = 3
"""Examples of each kind in the terminal."""


def target_dataset(config: Config) -> PictureSet:
    """The prepared pictures or texts.

    Raises:
        ConfigError: a section is given that only recommenders have a use for.
    """
    if given := [name for name in OF_LOGS if getattr(config, name) is not None]:
        raise ConfigError(
            [f"{name}: for recommenders alone, and task.kind is classify; leave it out" for name in given]
        )
    with bars("prepare") as progress:
        pictures = prepare_pictures(Storage.from_config(config.storage), config.name, config, progress)
    manifest = pictures.manifest
    kept = manifest.counts.pictures_in - sum(manifest.counts.quarantined.values())
    told = f"{kept:,} of {manifest.counts.pictures_in:,} {pictures.kind}, {pictures.num_classes:,} classes in"
    say("prepare", told, pictures.uri)
    for note in manifest.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    return pictures


def finetune_run(config: Config, pictures: PictureSet) -> Run:
    """Fine-tune from the pretrained backbone, whose features are computed first; without weights, from scratch.

    With `tune`, by the schedule that a search finds.
    """
    config = settled(config)
    if config.tune is not None:
        check_search(config)
    run = begun_run(config, pictures)
    if config.tune is None and run.role == "scratch":
        return run
    if not run.is_published():
        features_stage(config, pictures)
    return run if config.tune is None else tuned_run(config, pictures, None, console)


def begun_run(config: Config, pictures: PictureSet) -> Run:
    """The configured schedule from the pretrained backbone; without weights, that from scratch."""
    config = settled(config)
    assert config.classifier is not None
    if config.classifier.weights is None:
        return scratch_run(config, pictures)
    return Run("finetune", config, config.schedule, pictures)


def features_stage(config: Config, pictures: PictureSet) -> None:
    """What the frozen backbone makes of them, where training reads it."""
    if (features := cached_features(pictures, config)) is not None:
        with bars("features") as progress:
            compute(features, config, progress)
        say("features", f"of {pictures.num_classes:,} classes' {pictures.kind} under", features.uri(""))


def scratch_run(config: Config, pictures: PictureSet) -> Run:
    """The same network from random weights: what fine-tuning must beat."""
    config = settled(config)
    assert config.classifier is not None
    config = config.model_copy(update={"classifier": config.classifier.from_scratch()})
    return Run("scratch", config, config.evaluate.scratch_schedule, pictures)


def earlier_runs(config: Config, pictures: PictureSet) -> dict[str, Run]:
    """None: backbones come pretrained."""
    return {}


def main_model(config: Config, pictures: PictureSet, run: Run) -> str:
    """What labels pictures or texts: the model of a published run."""
    return run.uri


def add_files(pictures: PictureSet, folder: Path) -> None:
    """Nothing: a classifier knows its classes itself."""


def evaluation(
    config: Config, pictures: PictureSet, runs: dict[str, Run], models: dict[str, str]
) -> tuple[dict[str, object], str]:
    """What `metrics.json` holds, and the page about it."""
    config = settled(config)
    with bars("evaluate") as progress:
        metrics = evaluate_pictures(pictures, models, config, progress)
    main_uri = next(iter(models.values()))
    judged, outcomes = _chosen_from(config, pictures, metrics)
    manifest = read_manifest(pictures.storage, main_uri)
    evidence = PictureEvidence(
        config=config,
        data=pictures.manifest,
        metrics=metrics,
        examples=pick_pictures(pictures, answers_of(pictures, main_uri, config), config.train.seed),
        records={name: run.records() for name, run in runs.items()},
        versions={**manifest["versions"], "git commit": manifest["git_commit"]},
        judged=judged,
        outcomes=outcomes,
    )
    return metrics, write_picture_report(evidence)


def _chosen_from(
    config: Config, pictures: PictureSet, metrics: dict[str, Any]
) -> tuple[dict[Candidate, Judgement], dict[Candidate, float]]:
    """The candidates of `choose` as they are judged, and what came of those that were trained, this time included."""
    if config.choose is None:
        return {}, {}
    with bars("judge") as progress:
        judged, failed = judge_all(pictures, config, config.choose.candidates, progress)
    for candidate, reason in failed.items():
        console.print(f"cannot be judged: {candidate.backbone}: {reason}", highlight=False, soft_wrap=True)
    outcomes, reached = outcomes_of(pictures, config, judged), metrics["metrics"][metrics["main"]][metrics["metric"]]
    for candidate in judged:
        if with_candidate(config, candidate).classifier == config.classifier:
            outcomes[candidate] = max(reached["mean"], outcomes.get(candidate, 0.0))
    return judged, outcomes


def predict_stage(config: Config, pictures: PictureSet, model_uri: str) -> str:
    """The likeliest labels of the whole test part; the URI of their folder."""
    uri = labels_uri(pictures, model_uri, config)
    with bars("predict") as progress:
        facts = predict_labels(pictures, model_uri, config, progress)
    say("predict", f"{facts[pictures.kind]:,} {pictures.kind} in", uri)
    return uri


def show_examples(config: Config, pictures: PictureSet, model_uri: str) -> None:
    """A few test pictures or texts, what they are and what is said of them."""
    found = pick_pictures(pictures, answers_of(pictures, model_uri, config), config.train.seed, SHOWN)
    table = Table(title=f"Some {pictures.kind}", caption="drawn at random: right, wrong; then the surest mistakes")
    for title in (pictures.kind[:-1], "is", "said", "sure"):
        table.add_column(title, justify="right" if title == "sure" else "left")
    for some in (found.right, found.wrong, found.sure):
        for one in some:
            table.add_row(*_row(one))
        table.add_section()
    console.print(table)


def _row(one: PictureExample) -> list[Text]:
    name = one.shown if isinstance(one.shown, str) else one.key
    mark = "✓" if one.is_right else "✗"
    return [Text(cell) for cell in (name, one.label, f"{mark} {one.said}", f"{one.probability:.0%}")]
