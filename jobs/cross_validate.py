"""How far a classifier's result can be trusted: the train part in folds, each told by a model of the others.

    python jobs/cross_validate.py --config FILE cross_validation.folds=5 [key=value ...]

The file is one of task.kind: classify. Each fold is a training of its own by the configured schedule (with `tune` too),
as many at a time as the cluster has room for; features of the frozen backbone are computed once for all of them. The
test part is not looked at. Killed, it goes on with the folds that are not trained yet. Writes `metrics.json` and
`out_of_fold.parquet`, the likeliest labels of everything that was held out, and `report.html`.
"""

import json

from door import run
from picture_stages import begun_run, features_stage, target_dataset
from ray import cluster_resources
from runs import console, say

from ray_app.checkpoint import read_manifest
from ray_app.config import Config, fingerprint
from ray_app.content.pretrained import settled
from ray_app.data.folds import folds_of, without_test
from ray_app.data.picture_set import PictureSet
from ray_app.errors import ConfigError
from ray_app.registry import METRICS_FILE, REPORT_FILE
from ray_app.report.folds import folds_report, folds_table
from ray_app.storage import join
from ray_app.tasks.cross_validation import cross_validated, held_out_answers, out_of_fold
from ray_app.training.run import Run
from ray_app.tuning.room import room_for
from ray_app.tuning.side_by_side import train_side_by_side

ANSWERS_FILE = "out_of_fold.parquet"


def main(config: Config) -> None:
    if config.cross_validation is None:
        raise ConfigError(["cross_validation: unset, so there are no folds; leave it out to take the defaults"])
    cross_validate(config, target_dataset(config))


def cross_validate(config: Config, pictures: PictureSet) -> str:
    """Train what is missing, write the outcome and show it; the URI of its folder."""
    config, storage = settled(config.model_copy(update={"tune": None})), pictures.storage
    assert config.cross_validation is not None
    folds = folds_of(pictures, config.cross_validation)
    runs = [begun_run(config, fold) for fold in folds]
    key = fingerprint([one.name for one in runs], config.evaluate.bootstrap_samples, config.predict.k)
    folder = join(storage.root(config.name), "cross_validations", key)
    metrics_uri = join(folder, METRICS_FILE)
    if storage.exists(metrics_uri):
        say("cross-validate", "found", folder)
        metrics = json.loads(storage.read_bytes(metrics_uri))
    else:
        _train(config, pictures, runs)
        models = [one.uri for one in runs]
        answers = held_out_answers(folds, models, config)
        table = out_of_fold(answers, pictures.manifest.classes, config.predict.k)
        storage.write_table(join(folder, ANSWERS_FILE), table)
        metrics = cross_validated(pictures, folds, models, answers, config)
        manifest = read_manifest(storage, models[0])
        versions = {**manifest["versions"], "git commit": manifest["git_commit"]}
        records = {f"fold {number}": one.records() for number, one in enumerate(runs, 1)}
        storage.write_bytes(join(folder, REPORT_FILE), folds_report(metrics, config, records, versions).encode())
        storage.write_bytes(metrics_uri, json.dumps(metrics, indent=1).encode())
        say("cross-validate", "wrote", folder)
    for note in metrics["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)
    console.print(folds_table(metrics))
    return folder


def _train(config: Config, pictures: PictureSet, runs: list[Run]) -> None:
    """Train the folds whose models are not published yet."""
    numbers = {one.key: number for number, one in enumerate(runs, 1)}
    missing = [one for one in runs if not one.is_published()]
    for one in runs:
        if one not in missing:
            say(f"fold {numbers[one.key]}", "found", one.uri)
    if missing:
        cluster = cluster_resources()
        room = room_for(config.train, cluster, len(missing))
        told = room.describe(f"{len(missing)} of {len(runs)} folds", cluster)
        console.print(f"cross-validate: {told}", highlight=False, soft_wrap=True)
        features_stage(config, without_test(pictures))
        for one in train_side_by_side(missing, room):
            say(f"fold {numbers[one.key]}", "wrote", one.uri)


if __name__ == "__main__":
    run(__doc__, main, section="cross_validation")
