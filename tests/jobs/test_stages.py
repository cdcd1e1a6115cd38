"""The stages: what they refuse and say, and a run that begins with a checkpoint named by a relative path."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import find_rate
import log_stages
import pytest
import stages
import torch
from door import user_error
from ray.train import WorkerGroupError

from ray_app.checkpoint import CheckpointError, read_manifest
from ray_app.config import Config, apply_overrides, parse_config
from ray_app.data.dataset import Dataset
from ray_app.data.stream import read_tables
from ray_app.errors import DataError, StorageError, TrainingError
from ray_app.tasks.recommend import build_task
from ray_app.tasks.recommender import load_trained
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress, Snapshot

DAY_S = 86_400
Make = Callable[..., Config]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A small log of 50 days, and the configuration of a short training on it."""
    rows = [f"{user},{(user + n) % 7},{(10 * n + user % 10) * DAY_S}" for user in range(40) for n in range(5)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    data = {"events": str(tmp_path / "events.csv"), "timestamp_unit": "s"}
    split = {"validation_start": "1970-02-01", "test_start": "1970-02-10"}
    phases = {"phases": [{"name": "short", "epochs": 1}]}
    config = parse_config(
        {
            "storage": {"path": str(tmp_path / "runs")},
            "data": {**data, "split": split},
            "model": {"dim": 8, "feedforward_dim": 8, "max_history_len": 5, "num_negatives": 4},
            "evaluate": {"exclude_seen": False, "scratch_schedule": phases},
        }
    )
    return lambda *overrides: apply_overrides(config, overrides)


def published(config: Config, target: Dataset) -> Run:
    """The run of `config` as if it were over, with the weights that it begins with."""
    run = stages.finetune_run(config, target)
    task = build_task(run.config, target, None, partial(read_tables, target.storage))
    run.publish(Snapshot.take(task.model, None, {}, Progress()))
    return run


@pytest.mark.cluster
def test_a_checkpoint_may_be_named_by_a_relative_path(
    ray_cluster: None, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Workers, which have a working directory of their own, did not find it."""
    target = stages.target_dataset(make())
    source = published(make(), target).uri
    monkeypatch.chdir(tmp_path)
    relative = str(Path(source).relative_to(tmp_path))
    run = stages.finetune_run(make(f"model.start_from={relative}", "schedule.phases=[{name: a, epochs: 1}]"), target)
    assert Path(stages.train(run)).is_dir()
    assert run.records()[0]["phase"] == "start"
    scratch = stages.scratch_run(make(f"model.start_from={relative}"), target)
    assert scratch.uri == source, "a run from scratch was repeated for each checkpoint that it is compared with"
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        stages.finetune_run(make(f"model.start_from={target.uri}"), target)


@pytest.mark.cluster
def test_a_cluster_without_room_is_told_in_a_sentence(ray_cluster: None, make: Make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    config = make("train.num_workers=50")
    with pytest.raises(TrainingError, match=r"no room for 50 workers with 1 CPUs each.*train\.num_workers"):
        stages.train(stages.finetune_run(config, stages.target_dataset(config)))


@pytest.mark.cluster
def test_a_fault_of_one_worker_alone_ends_them_all(ray_cluster: None, make: Make):
    """It returned, and the others waited for it until the process group's time was over."""
    config = make("train.num_workers=2", "train.max_failures=0")
    target = stages.target_dataset(config)
    Path(target.part_uris[1]).write_bytes(b"no parquet")  # the first part of the second worker
    with pytest.raises(WorkerGroupError) as caught:
        stages.train(stages.finetune_run(config, target))
    assert isinstance(fault := user_error(caught.value), StorageError)
    assert str(fault).startswith(f"{target.part_uris[1]}: cannot be read as parquet")


def test_a_schedule_that_is_not_used_is_told(make: Make, capsys: pytest.CaptureFixture[str]):
    target = stages.target_dataset(make())
    stages.finetune_run(make(), target)
    assert "note:" not in capsys.readouterr().out
    assert stages.finetune_run(make("schedule.clip_norm=2"), target).role == "scratch"
    assert "note: without pretrain and model.start_from, evaluate.scratch_schedule is" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("split", "is_refused"),
    [
        ("{validation_start: 1970-02-01, test_start: 1970-02-10}", False),
        ("{validation_start: 1970-01-30, test_start: 1970-02-09}", False),
        ("{validation_start: 1970-02-02, test_start: 1970-02-10}", True),
        ("{validation_start: 1970-02-01, test_start: 1970-02-11}", True),
        ("{kind: leave_one_out}", True),
    ],
)
def test_pretraining_sees_nothing_past_the_cutoffs_of_the_target(make: Make, split: str, is_refused: bool):
    """Its validation part, which chooses the epoch, could reach into the target's test part."""
    events = make().data.events[0]
    config = make(f"pretrain={{data: {{events: {events}, timestamp_unit: s, split: {split}}}}}")
    target = stages.target_dataset(config)
    if is_refused:
        with pytest.raises(DataError, match="past the target's cutoffs"):
            log_stages.source_dataset(config, target)
    else:
        assert log_stages.source_dataset(config, target).manifest.counts.train_events


@pytest.mark.parametrize("kind", ["temporal", "leave_one_out"])
def test_a_source_without_a_split_has_that_of_the_target(make: Make, kind: str, tmp_path: Path):
    """Days counted back from the end of a longer log were past the target's cutoffs, and a first try ended there."""
    log = (tmp_path / "events.csv").read_text()
    (tmp_path / "longer.csv").write_text(f"{log}\n1,1,{200 * DAY_S}\n2,2,{200 * DAY_S}\n")
    source = f"{{data: {{events: {tmp_path}/longer.csv, timestamp_unit: s}}}}"
    config = make(f"data.split={{kind: {kind}}}", f"pretrain={source}")
    target = stages.target_dataset(config)
    found = log_stages.source_dataset(config, target).manifest
    assert found.cutoffs == target.manifest.cutoffs
    assert found.counts.train_events
    assert (found.cutoffs.test_start is None) == (kind == "leave_one_out")


def test_a_checkpoint_that_saw_the_test_part_is_refused(make: Make):
    """Its test results were too good, and nobody was told."""
    late = make("data.split.test_start=1970-02-12")
    seen = published(late, stages.target_dataset(late)).uri
    target = stages.target_dataset(make())
    with pytest.raises(DataError, match=r"trained on events past the target's cutoffs.*model\.start_from"):
        stages.finetune_run(make(f"model.start_from={seen}"), target)
    assert stages.finetune_run(make(f"model.start_from={published(make(), target).uri}"), target).role == "finetune"


def test_a_ranker_is_fitted_where_it_is_configured(make: Make):
    target = stages.target_dataset(make())
    run = published(make(), target)
    assert stages.main_model(make(), target, run) == run.uri
    assert stages.compared_models(make(), target, {"scratch": run}) == {"scratch": run.uri}
    with pytest.raises(DataError, match="the ranker needs 50 users"):  # and 40 are not enough
        stages.compared_models(make("ranker={}"), target, {"scratch": run})


def test_sources_that_share_no_item_with_the_target_meet_it_in_content(make: Make, minilm: Path, tmp_path: Path):
    """From raw logs to the fine-tuned model's start: what pretraining knows of texts is where the target begins."""
    for shop in ("one", "two"):
        log = (tmp_path / "events.csv").read_text()
        (tmp_path / f"{shop}.csv").write_text(log.replace("\n", f"\n{shop}"))
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(f"{n},color {n}" for n in range(7)))
    split = "split: {validation_start: 1970-02-01, test_start: 1970-02-10}"
    source = f"timestamp_unit: s, items: {tmp_path}/items.csv, {split}"
    config = make(
        f"data.items={tmp_path}/items.csv",
        f"content={{text: 'hf:{minilm}', max_tokens: 8}}",
        f"pretrain={{data: {{events: {tmp_path}/one.csv, {source}}}}}",
        f"pretrain.more=[{{events: {tmp_path}/two.csv, {source}}}]",
    )
    target = stages.target_dataset(config)
    before = log_stages.pretrain_run(config, target)
    assert before.dataset.num_items == 14
    task = build_task(config, before.dataset, None, partial(read_tables, target.storage))
    before.publish(Snapshot.take(task.model, None, {}, Progress()))
    assert read_manifest(target.storage, before.uri)["encoder"] == target.encoder

    run = stages.finetune_run(config, target)
    assert run.start_from == before.uri
    trained = load_trained(target.storage, before.uri)
    begun = build_task(config, target, trained, partial(read_tables, target.storage)).model
    assert begun.content is not None
    torch.testing.assert_close(begun.table(), trained.model.content_vectors(begun.content))
    plain = stages.target_dataset(make(f"data.items={tmp_path}/items.csv"))
    with pytest.raises(CheckpointError, match="content must be the section that the model was trained with"):
        build_task(config, plain, trained, partial(read_tables, target.storage))


def test_rates_are_suggested_for_each_phase_after_those_before(make: Make, capsys: pytest.CaptureFixture[str]):
    find_rate.main(make("evaluate.scratch_schedule.phases=[{name: a, epochs: 1}, {name: b, epochs: 1}]"))
    told = capsys.readouterr().out
    places = [told.index(text) for text in ("a: loss by learning rate", "a: trained at 0.001", "b: loss by learning")]
    assert places == sorted(places)
    assert told.count("fastest fall at") == 2
    assert "b: trained" not in told
