"""A data curve by the job: samples, trainings side by side, all asked about everybody, and found again."""

import json

import data_curve
import log_stages
import pytest
import stages
from pages import Page
from runs import train

from ray_app.config import Config, apply_overrides, parse_config
from ray_app.data.sample import sampled
from ray_app.errors import ConfigError
from ray_app.storage import Storage, join
from ray_app.tasks.data_curve import MIN_STEPS, for_few
from ray_app.tasks.ranking import evaluate

DAY_S = 86_400


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A log of 50 days in which each item is followed by the next, and a short training on it."""
    folder = tmp_path_factory.mktemp("data_curve")
    rows = [f"{user},{(user + n) % 9},{(10 * n + user % 10) * DAY_S}" for user in range(120) for n in range(5)]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    return parse_config(
        {
            "name": "shop",
            "storage": {"path": str(folder / "runs")},
            "data": {
                "events": str(folder / "events.csv"),
                "timestamp_unit": "s",
                "split": {"validation_start": "1970-02-01", "test_start": "1970-02-10"},
            },
            "model": {"dim": 8, "feedforward_dim": 8, "max_history_len": 5, "num_negatives": 4},
            "schedule": {
                "phases": [
                    {
                        "name": "head",
                        "epochs": 1,
                        "groups": [{"match": "^backbone", "rate": "frozen"}, {"match": ".*"}],
                    },
                    {"name": "full", "epochs": 2},
                ]
            },
            "evaluate": {
                "exclude_seen": False,
                "bootstrap_samples": 100,
                "baselines": ["popular"],
                "scratch_schedule": {"phases": [{"name": "all", "epochs": 3, "learning_rate": 0.02}]},
            },
            "data_curve": {"shares": [0.4], "strategies": ["configured", "scratch"]},
        }
    )


@pytest.fixture(scope="module")
def started(ray_cluster: None, config: Config) -> Config:
    """The same, with a checkpoint to begin with."""
    target = log_stages.target_dataset(config)
    return apply_overrides(config, [f"model.start_from={train(log_stages.scratch_run(config, target))}"])


def files(storage: Storage, folder: str) -> dict[str, str]:
    return {file.uri: file.etag for file in storage.list_files(folder)}


@pytest.mark.cluster
def test_every_model_is_asked_about_everybody_and_knows_its_users_alone(
    started: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    data_curve.main(started)
    said = capsys.readouterr().out
    # The whole log from scratch was trained already: what fine-tuning begins with here.
    assert "3 of 4 trainings" in said
    storage = Storage.from_config(started.storage)
    folder = join(storage.root("shop"), "data_curves")
    [metrics_uri] = [uri for uri in files(storage, folder) if uri.endswith("metrics.json")]
    found = json.loads(storage.read_bytes(metrics_uri))
    target = log_stages.target_dataset(started)
    part = sampled(target, 0.4)
    assert [one["share"] for one in found["points"]] == [0.4, 1.0]
    assert [one["users"] for one in found["points"]] == [part.manifest.counts.users, 120]
    for one in found["points"]:
        names = ["fine-tuned", "scratch", "pretrained", "popular"]
        assert list(one["metrics"]) == names
        assert one["differences"].keys() == set(names[1:])
    # A point is an evaluation of the whole log's test part by models and counts of the sample.
    few = found["points"][0]
    models = {name: told["checkpoint"] for name, told in few["methods"].items() if told["kind"] == "model"}
    again = evaluate(storage, target, models, started, known=part)
    assert again["metrics"] == few["metrics"]
    assert again["protocol"]["users"] == found["protocol"]["users"] > part.manifest.counts.users
    alone = evaluate(storage, target, {}, started)
    assert alone["metrics"]["popular"] == found["points"][1]["metrics"]["popular"] != few["metrics"]["popular"]
    page = Page(storage.read_bytes(metrics_uri.replace("metrics.json", "report.html")).decode())
    assert "scratch on 40%" in page.text

    before = files(storage, storage.root("shop"))
    data_curve.main(started)
    assert "data curve: found" in capsys.readouterr().out
    assert files(storage, storage.root("shop")) == before


@pytest.mark.cluster
def test_the_report_of_the_pipeline_shows_it(started: Config) -> None:
    config = apply_overrides(started, ["data_curve.strategies=[scratch]"])
    target = stages.target_dataset(config)
    run = log_stages.scratch_run(config, target)
    uri = stages.evaluate_stage(config, target, {"scratch": run}, {"scratch": train(run)})
    page = Page(target.storage.read_bytes(join(uri, "report.html")).decode())
    assert "How much there is to learn from" in page.text
    plain = config.model_copy(update={"data_curve": None})
    without = stages.evaluate_stage(plain, target, {"scratch": run}, {"scratch": run.uri})
    assert without != uri
    assert "How much there is" not in target.storage.read_bytes(join(without, "report.html")).decode()


def test_a_strategy_without_a_use_is_refused_before_anything_is_trained(config: Config) -> None:
    config = apply_overrides(config, ["data_curve.strategies=[scratch, linear_probe]"])
    target = log_stages.target_dataset(config)
    with pytest.raises(ConfigError, match=r"data_curve\.strategies\.1: 'linear_probe' .* nothing new here"):
        log_stages.finetune_run(config, target)


def test_few_users_are_learned_from_in_smaller_batches(config: Config) -> None:
    target = log_stages.target_dataset(config)
    part = sampled(target, 0.4)
    whole, targets = (sum(one.train_targets for one in each.manifest.parts) for each in (target, part))

    def tokens(given: int) -> int:
        return for_few(
            apply_overrides(config, [f"train.tokens_per_batch={given}"]), part, target
        ).train.tokens_per_batch

    assert tokens(1) == 1
    assert tokens(whole // MIN_STEPS) == targets // MIN_STEPS
    assert tokens(whole // 3) == targets // 3, "the whole log has three steps, and so have its parts"
    assert tokens(whole) == targets
