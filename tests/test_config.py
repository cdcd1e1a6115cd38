"""Configuration: faults in words, overrides, secrets, fingerprints, and the way through YAML and back."""

import math
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from ray_app.config import Config, StorageConfig, fingerprint, load_config, parse_config
from ray_app.config_help import describe_keys
from ray_app.data_config import DataConfig, SplitConfig
from ray_app.errors import ConfigError
from ray_app.schedule import FULL, HEAD, Phase, Schedule


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(yaml.safe_load(text))
    assert caught.value.exit_code == 2
    assert str(caught.value).splitlines() == caught.value.faults
    return caught.value.faults


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- faults


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("mdel: {}", "mdel: unknown key, did you mean 'model'? allowed: name, storage, data, content, task,"),
        ("zzz: 1", "zzz: unknown key; allowed: name, storage"),
        (
            "data: {split: {knd: temporal}}",
            "data.split.knd: unknown key, did you mean 'kind'? allowed: kind, validation",
        ),
        (
            "pretrain: {data: {evnts: a}}",
            "pretrain.data.evnts: unknown key, did you mean 'events'? allowed: events, for",
        ),
        (
            "schedule: {phases: [{name: a, epochs: 1, patence: 3}]}",
            "schedule.phases.0.patence: unknown key, did you mean 'patience'? allowed: name, epochs",
        ),
        (
            "schedule: {phases: [{name: a, epochs: 1, groups: [{match: a, rates: 1}]}]}",
            "schedule.phases.0.groups.0.rates: unknown key, did you mean 'rate'? allowed: match, rate, depth",
        ),
        ("train: {num_workers: four}", "train.num_workers: 'four' given; should be a valid integer"),
        ("train: {num_workers: 0}", "train.num_workers: 0 given; should be greater than or equal to 1"),
        ("train: 3", "train: 3 given; should be a section with some of the keys num_workers, use_gpu"),
        ("train:", "train: nothing given; should be a section with some of the keys num_workers"),
        ("name: no", "name: False given; should be text (in quotes"),
        ("name: a/b", "name: 'a/b' given; should match pattern"),
        ("evaluate: {k: []}", "evaluate.k: [] given; should have at least 1 item"),
        ("evaluate: {k: 5}", "evaluate.k: 5 given; should be a list"),
        (
            "evaluate: {baselines: [popular, best]}",
            "evaluate.baselines.1: 'best' given; should be 'popular', 'popular_",
        ),
        ("data: {event_types: {buy: -1}}", "data.event_types.buy: -1 given; should be greater than or equal to 0"),
        ("data: {event_types: {3: 1}}", "data.event_types.3: 3 given; should be text"),
        ("data: {split: {test_days: 1e9}}", "data.split.test_days: '1e9' given; should be less than or equal to 36525"),
        ("model: {dropout: .nan}", "model.dropout: nan given; should be a finite number"),
        ("model: {dim: 5, num_heads: 2}", "model: dim (5) must be a multiple of num_heads (2)"),
        ("model: {temperature: 0}", "model.temperature: 0 given; should be greater than or equal to 0.01"),
        ("model: {label_smoothing: 0.1}", "model: label_smoothing needs loss: softmax"),
        (
            "{model: {mark_clicks: true}, data: {event_types: {buy: 1, view: 0.1}}}",
            "(top level): model.mark_clicks needs data.event_types with a type of weight 0",
        ),
        ("storage: {access_key_id: a}", "storage: access_key_id and secret_access_key go together"),
        ("storage: {endpoint: 'localhost:9000'}", "storage.endpoint: 'localhost:9000' given; should match pattern"),
        ("data: {split: {test_start: 2020-01-01}}", "data.split: validation_start and test_start go together"),
        (
            "data: {split: {validation_start: 2020-01-02, test_start: 2020-01-01}}",
            "data.split: validation_start must lie before test_start",
        ),
        ("schedule: {phases: [{epochs: 1}]}", "schedule.phases.0.name: required, but not given"),
        (
            "schedule: {phases: [{name: a, epochs: 1, groups: [{match: '['}]}]}",
            "schedule.phases.0.groups.0.match: '[' given; not a regular expression: unterminated",
        ),
        (
            "schedule: {phases: [{name: a, epochs: 1, groups: [{match: a, rate: frizen}]}]}",
            "schedule.phases.0.groups.0.rate: 'frizen' given; should be a valid number, unable to parse string as a "
            "number or should be 'frozen'",
        ),
        ("schedule: {phases: [{name: a, epochs: 1}, {name: a, epochs: 1}]}", "schedule: phase names must differ"),
        ("schedule: {ema: 1}", "schedule.ema: 1 given; should be less than 1"),
        ("schedule: {wise: [0.5, 2]}", "schedule.wise.1: 2 given; should be less than or equal to 1"),
        ("pretrain: {schedule: {wise: [0.5]}}", "pretrain.schedule: wise goes back toward pretrained weights"),
        ("content: {}", "content: content needs text, image or labels, at least one of them"),
        ("content: {max_tokens: 8}", "content: content needs text, image or labels, at least one of them"),
        ("content: {image: resnet18}", "content.image: 'resnet18' given; should match pattern"),
        ("content: {labels: [color]}", "content.labels.0: 'color' given; should be 'brand', 'category' or 'price'"),
        ("content: {labels: [brand, brand]}", "content: labels: each column once, and not brand, brand"),
        ("content: {image: hf:x, image_weights: w.safetensors}", "content: weights of an hf: backbone are those in"),
        (
            "schedule: {phases: [{name: a, epochs: 1, groups: [{match: a, depth: [0.7, 0.3]}]}]}",
            "schedule.phases.0.groups.0.depth: [0.7, 0.3] given; depth goes up, from 0 ",
        ),
        ("schedule: {phases: [{name: a, epochs: 1, decay: plateau}]}", "schedule.phases.0: plateau goes by patience"),
        (
            "schedule: {phases: [{name: a, epochs: 1, optimizer: lbfgs, decay: cosine}]}",
            "schedule.phases.0: lbfgs finds the length of its steps itself: leave out warmup and decay",
        ),
        (
            "pretrain: {schedule: {phases: [{name: a, epochs: 1, optimizer: lbfgs}]}}",
            "pretrain.schedule: lbfgs fits a head on a frozen backbone, and from scratch nothing is frozen",
        ),
        (
            "schedule: {phases: [{name: a, epochs: 1, optimizer: lbfgs}]}",
            "(top level): schedule: lbfgs fits the head of a classifier, and a recommender has none: take adamw",
        ),
        (
            "{task: {kind: classify}, pictures: {}, classifier: {cached_views: 0}, schedule: {phases: [{name: a, "
            "epochs: 1, optimizer: lbfgs}]}}",
            "(top level): schedule: lbfgs fits a head on kept features, and none are kept with classifier.cached_views",
        ),
        ("{1: 2}", "1: keys should be text"),
        (f"name: {'x' * 500}", f"name: '{'x' * 79}... given; "),
    ],
)
def test_one_line_for_one_fault(text: str, line: str) -> None:
    """Also where pydantic reports a list as too short since its only part is wrong, or both branches of a union."""
    (found,) = faults(text)
    assert found.startswith(line)


def test_each_fault_gets_its_line() -> None:
    text = "{train: {num_workers: 0, use_gpu: maybe}, data: {events: [1, b, 2]}, nme: x}"
    assert [line.split(":")[0] for line in faults(text)] == [
        *("data.events.0", "data.events.2", "train.num_workers", "train.use_gpu", "nme"),
    ]


def test_a_fault_never_shows_a_secret() -> None:
    for text in ("1234567", "[1234567]", "{a: 1234567}"):
        (line,) = faults(f"storage: {{access_key_id: x, secret_access_key: {text}}}")
        assert line.startswith("storage.secret_access_key: should be text")
        assert "1234567" not in line


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "is not YAML: "),
        ("- 1", "the top level must be a mapping of sections, got list"),
        ("train: {num_workers: 1}\nname: x\ntrain: {}", "is not YAML: key 'train' stands twice at line 3, column 1"),
        ("model: {dim: 8, dim: 16}", "is not YAML: key 'dim' stands twice at line 1, column 17"),
        ("{[a, b]: 1}", "is not YAML: a key is a list or mapping at line 1, column 2"),
        ("data:\n  now: 2020-02-30", "is not YAML: no such date or number at line 2, column 8"),
        ("a: !!python/name:os.system", "is not YAML: could not determine a constructor"),
    ],
)
def test_files_that_are_not_configurations(tmp_path: Path, text: str, fault: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {fault}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("name: größe".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load_config(tmp_path / "latin.yaml")


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "# nothing yet\n")) == Config()
    assert load_config(None) == Config()
    assert load_config(None, ["data.format=recbole"]).data.format == "recbole"


@pytest.mark.parametrize("text", ["", "tune:", "tune: {}", "tune: {seed: 7}"])
def test_a_job_may_begin_a_section_that_its_file_leaves_out(tmp_path: Path, text: str) -> None:
    tune = load_config(written(tmp_path, text), ["tune.num_trials=3"], section="tune").tune
    assert tune is not None
    assert (tune.num_trials, tune.seed) == (3, 7 if "seed" in text else 0)


def test_a_section_that_a_job_begins_is_checked_with_all_that_is_given() -> None:
    given = ["task.kind=classify", "pictures={}", "classifier={}", "choose.candidates=[{backbone: 'timm:a'}]"]
    choose = load_config(None, given, section="choose").choose
    assert choose is not None
    assert [(one.backbone, one.weights) for one in choose.candidates] == [("timm:a", "pretrained")]
    with pytest.raises(ConfigError, match=r"choose is for task\.kind: classify"):
        load_config(None, section="choose")


def test_cross_validation_is_one_setting():
    given = ["task.kind=classify", "pictures={}", "classifier={}"]
    found = load_config(None, given, section="cross_validation").cross_validation
    assert found is not None
    assert (found.folds, found.kind) == (5, "stratified")
    with pytest.raises(
        ConfigError, match=r"cross_validation is for task\.kind: classify; a log is judged on what comes"
    ):
        load_config(None, section="cross_validation")
    with pytest.raises(ConfigError, match=r"cross_validation\.folds: 1 given; should be greater than or equal to 2"):
        load_config(None, [*given, "cross_validation={folds: 1}"])


def test_a_data_curve_is_of_logs():
    found = load_config(None, section="data_curve").data_curve
    assert found is not None
    assert found.shares == (0.05, 0.1, 0.2, 0.5)
    assert found.strategies is None
    with pytest.raises(
        ConfigError, match=r"data_curve is of users; of pictures fewer are trained on by pictures\.train"
    ):
        load_config(None, ["task.kind=classify", "pictures={}", "classifier={}"], section="data_curve")
    with pytest.raises(ConfigError, match=r"data_curve\.shares\.1: 1\.0 given; should be less than 1"):
        load_config(None, ["data_curve.shares=[0.5, 1.0]"], section="data_curve")
    with pytest.raises(ConfigError, match=r"data_curve\.strategies\.0: 'bounded_delta' given"):
        load_config(None, ["data_curve.strategies=[bounded_delta]"], section="data_curve")


# --- overrides


@pytest.mark.parametrize(
    ("override", "value", "expected"),
    [
        ("train.num_workers=4", lambda c: c.train.num_workers, 4),
        ("name=shop", lambda c: c.name, "shop"),
        ("data.events=logs/*.csv", lambda c: c.data.events, ("logs/*.csv",)),
        ("data.events=[a.csv, b.csv]", lambda c: c.data.events, ("a.csv", "b.csv")),
        ("evaluate.k=[1, 2]", lambda c: c.evaluate.k, (1, 2)),
        ("evaluate.k.1=7", lambda c: c.evaluate.k, (5, 7, 20)),
        ("evaluate.exclude_seen=false", lambda c: c.evaluate.exclude_seen, False),
        ("schedule.clip_norm=null", lambda c: c.schedule.clip_norm, None),
        ("schedule.clip_norm=1e-3", lambda c: c.schedule.clip_norm, 0.001),
        ("schedule.phases.1.l2_sp=0.5", lambda c: c.schedule.phases, (HEAD, FULL.model_copy(update={"l2_sp": 0.5}))),
        ("schedule.phases.0.groups.1.rate=2", lambda c: c.schedule.phases[0].groups[1].rate, 2.0),
        ("schedule.phases=[{name: all, epochs: 2}]", lambda c: c.schedule.phases, (Phase(name="all", epochs=2),)),
        ("data.event_types={buy: 2}", lambda c: c.data.event_types, {"buy": 2.0}),
        ("data.now=2011-12-10", lambda c: c.data.now, datetime(2011, 12, 10)),
        ("model.start_from=s3://bucket/a=b", lambda c: c.model.start_from, "s3://bucket/a=b"),
    ],
)
def test_overrides(tmp_path: Path, override: str, value: Callable[[Config], object], expected: object) -> None:
    """Values are YAML; lists are reached by position, also those that only the defaults have."""
    assert value(load_config(written(tmp_path, ""), [override])) == expected


def test_overrides_come_in_order_and_after_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "train: {num_workers: 2, seed: 5}\ndata: {event_types: {view: 0.1}}")
    config = load_config(path, ["train.num_workers=3", "train.num_workers=4", "data.event_types.buy=1"])
    assert (config.train.num_workers, config.train.seed) == (4, 5)
    assert config.data.event_types == {"view": 0.1, "buy": 1.0}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.num_worker=4", "train.num_worker: unknown key, did you mean 'num_workers'? allowed: num_workers"),
        ("trian.seed=4", "trian.seed: unknown key 'trian'; allowed: name, storage"),
        ("train.seed.x=4", "train.seed.x: train.seed is a plain value and has no key 'x'"),
        (
            "schedule.phases.2.epochs=4",
            "schedule.phases.2.epochs: '2' is not a position in a list of 2 (counted from 0)",
        ),
        ("evaluate.k.-1=4", "evaluate.k.-1: '-1' is not a position in a list of 3"),
        ("schedule.phases.first=4", "schedule.phases.first: 'first' is not a position in a list of 2"),
        ("pretrain.data.events=a", "pretrain.data.events: pretrain is not set, so nothing below it can be"),
        ("train.seed=-1", "train.seed: -1 given; should be greater than or equal to 0"),
        ("train.seed=[", "train.seed: is not YAML: "),
        ("train.seed", "train.seed: an override is written key=value"),
        ("=3", "=3: an override is written key=value"),
    ],
)
def test_faults_of_overrides(tmp_path: Path, override: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, ""), [override])
    (found,) = caught.value.faults
    assert found.startswith(line)


# --- secrets, fingerprints, YAML and back


def test_secrets_are_read_and_never_written() -> None:
    storage = StorageConfig(access_key_id=SecretStr("the-key"), secret_access_key=SecretStr("the-secret"))
    config = Config(storage=storage)
    for text in (config.to_yaml(), repr(config), str(config), config.model_dump_json(), repr(config.model_dump())):
        assert "the-secret" not in text
        assert "the-key" not in text
    assert "secret_access_key" not in config.to_yaml()
    assert fingerprint(config) == fingerprint(Config())
    assert storage.secret_access_key is not None
    assert storage.secret_access_key.get_secret_value() == "the-secret"


def test_overrides_keep_secrets(tmp_path: Path) -> None:
    path = written(tmp_path, "storage: {access_key_id: k, secret_access_key: the-secret}")
    secret = load_config(path, ["train.seed=1"]).storage.secret_access_key
    assert secret is not None
    assert secret.get_secret_value() == "the-secret"


def test_a_fingerprint_never_changes() -> None:
    """A changed one would have every prepared dataset prepared again."""
    assert fingerprint({"b": [1, 2.5, None, "ü"], "a": True}, ["s3://b/k", 3, "etag"]) == "e5a63174d3a39ea7"


def test_fingerprints_tell_values_and_not_order() -> None:
    one = parse_config({"data": {"events": "a", "event_types": {"x": 1, "y": 2}}, "name": "n"})
    two = parse_config({"name": "n", "data": {"event_types": {"y": 2.0, "x": 1.0}, "events": ["a"]}})
    assert fingerprint(one.data) == fingerprint(two.data)
    assert fingerprint(one.data) != fingerprint(DataConfig(events=("a",)))
    assert fingerprint(one, two) != fingerprint([one.to_yaml(), two.to_yaml()])
    assert fingerprint("a", "b") != fingerprint("b", "a")


def test_fingerprints_agree_between_processes() -> None:
    code = "from ray_app.config import *; print(fingerprint(Config()), end='')"
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        )
        assert run.stdout.decode() == fingerprint(Config())


def values_of(annotation: Any, limits: list[Any]) -> st.SearchStrategy[Any]:
    """Values that a field of the configuration may have in a YAML file, drawn from its type and limits."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [
            limit for extra in arguments[1:] for limit in (extra.metadata if isinstance(extra, FieldInfo) else [extra])
        ]
        return values_of(arguments[0], limits + inner)
    if origin in (Union, UnionType):
        return st.one_of([values_of(argument, limits) for argument in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        least = next((limit.min_length for limit in limits if isinstance(limit, annotated_types.MinLen)), 0)
        return st.lists(values_of(arguments[0], []), min_size=least, max_size=3)
    if origin is dict:
        return st.dictionaries(values_of(arguments[0], []), values_of(arguments[1], []), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {name: values_of(field.annotation, field.metadata) for name, field in annotation.model_fields.items()}
        needed = {name for name, field in annotation.model_fields.items() if field.is_required()}
        return st.fixed_dictionaries(
            {name: fields[name] for name in needed}, optional={name: fields[name] for name in fields.keys() - needed}
        )
    return leaves_of(annotation, limits)


def leaves_of(annotation: Any, limits: list[Any]) -> st.SearchStrategy[Any]:
    pattern = next((found for limit in limits if (found := getattr(limit, "pattern", None))), None)
    low = next((x for limit in limits for kind in ("ge", "gt") if (x := getattr(limit, kind, None)) is not None), None)
    high = next((x for limit in limits for kind in ("le", "lt") if (x := getattr(limit, kind, None)) is not None), None)
    return {
        str: st.from_regex(pattern, fullmatch=True) if pattern else st.text(st.characters(codec="utf-8"), max_size=8),
        int: st.integers(low, high),
        float: st.floats(low, high, allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        datetime: st.datetimes(timezones=st.sampled_from([None, UTC])),
        SecretStr: st.none(),
        type(None): st.none(),
    }[annotation]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(values_of(Config, []))
def test_any_configuration_survives_yaml(raw: dict[str, Any]) -> None:
    try:
        config = parse_config(raw)
    except ConfigError:  # a rule between fields, or an open end of a range
        assume(False)
    again = parse_config(yaml.safe_load(config.to_yaml()))
    assert again == config
    assert fingerprint(again) == fingerprint(config)
    assert again.to_yaml() == config.to_yaml()


def test_the_default_is_what_the_default_says() -> None:
    assert parse_config(yaml.safe_load(Config().to_yaml())) == Config()
    assert not math.isnan(Config().model.dropout)
    with pytest.raises(ValueError, match="frozen"):
        Config().name = "other"  # type: ignore[misc]


def test_help_has_every_key() -> None:
    """Keys of sections that come again are named where they come first."""
    text = describe_keys(Config)
    for section, prefix in (
        (Config, ""),
        (SplitConfig, "data.split."),
        (Schedule, "schedule."),
        (Phase, "schedule.phases.0."),
    ):
        for name in section.model_fields:
            assert f"\n  {prefix}{name}" in f"\n{text}"
    assert "train.num_workers: int = 1" in text
    assert "pretrain.schedule: as schedule" in text
    assert "storage.secret_access_key: secret = unset" in text
