"""The configuration: one YAML file, typed sections, dotted overrides, unknown keys refused.

`load_config("x.yaml", ["train.num_workers=4"])` gives a frozen `Config` or raises `ConfigError`, one line per fault.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator

from ray_app.content_config import ContentConfig
from ray_app.data_config import DataConfig, SourceConfig
from ray_app.errors import ConfigError
from ray_app.evaluate_config import DataCurveConfig, EvaluateConfig, PredictConfig
from ray_app.faults import describe
from ray_app.picture_config import (
    AugmentConfig,
    ChooseConfig,
    ClassifierConfig,
    CrossValidationConfig,
    PicturesConfig,
    TextsConfig,
)
from ray_app.schedule import Schedule, ScratchSchedule, Section, from_scratch
from ray_app.serve_config import ServeConfig
from ray_app.train_config import ModelConfig, RankerConfig, TrainConfig
from ray_app.tune_config import TuneConfig
from ray_app.yaml_tree import TreeError, parse_yaml, put, read_tree

_MISREAD = frozenset("\x85\u2028\u2029\ufeff")  # PyYAML writes them as they are, and misreads them


class StorageConfig(Section):
    """Where everything is read from and written to."""

    path: str = "runs"
    """Folder or `s3://bucket/prefix` under which `{name}/` is written."""
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/\s]+/?$")] | None = None
    """URL of an S3 server that is not AWS. Falls back to AWS_ENDPOINT_URL."""
    region: str | None = None
    """Falls back to AWS_REGION and AWS_DEFAULT_REGION."""
    access_key_id: SecretStr | None = None
    """Credentials fall back to the environment, the shared credentials file and the instance role."""
    secret_access_key: SecretStr | None = None
    """Never printed."""
    connect_timeout_s: Annotated[float, Field(gt=0)] = 4.0
    """Twice this is what a wrong endpoint costs before it is reported."""

    @model_validator(mode="after")
    def _both_keys(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together: give both or neither")
        return self


class TaskConfig(Section):
    """What is learned."""

    kind: Literal["recommend", "classify"] = "recommend"
    """recommend: the next items of a user, from logs of events; classify: the label of a picture or text."""


class PretrainConfig(Section):
    """One or more source logs on which the model is trained before the target's own."""

    data: SourceConfig = SourceConfig()
    more: tuple[SourceConfig, ...] = ()
    """Further sources with items of their own. What they share with each other and with the target is content."""
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """Of several sources one with n events counts as n^(1/temperature): 1 as it is, great: all alike."""
    schedule: ScratchSchedule = from_scratch()


class Config(Section):
    """Everything a run depends on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] = "default"
    """Folder of this project below `storage.path`, and its name in the registry."""
    storage: StorageConfig = StorageConfig()
    data: DataConfig = DataConfig()
    content: ContentConfig | None = None
    """Unset: an item is its id alone."""
    task: TaskConfig = TaskConfig()
    pictures: PicturesConfig | None = None
    """What `data.events` holds when the task is to classify pictures."""
    texts: TextsConfig | None = None
    """What it holds when the task is to classify texts."""
    classifier: ClassifierConfig | None = None
    """The network when the task is classify."""
    choose: ChooseConfig | None = None
    """Other networks that it could be."""
    cross_validation: CrossValidationConfig | None = None
    """How sure a classifier's result is."""
    model: ModelConfig = ModelConfig()
    schedule: Schedule = Schedule()
    train: TrainConfig = TrainConfig()
    ranker: RankerConfig | None = None
    """Unset: items are ranked by the sequence model alone."""
    pretrain: PretrainConfig | None = None
    tune: TuneConfig | None = None
    """Unset: the schedule is used as it is configured."""
    evaluate: EvaluateConfig = EvaluateConfig()
    data_curve: DataCurveConfig | None = None
    """Unset: the report does not say what fewer users to learn from would be worth."""
    predict: PredictConfig = PredictConfig()
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="after")
    def _sources_share_content(self) -> Self:
        if self.pretrain is not None and self.pretrain.more and self.content is None:
            raise ValueError("pretrain.more needs content: sources with items of their own share nothing else")
        return self

    @model_validator(mode="after")
    def _clicks_have_a_type(self) -> Self:
        if self.model.mark_clicks and 0 not in (self.data.event_types or {}).values():
            raise ValueError("model.mark_clicks needs data.event_types with a type of weight 0, which are the clicks")
        return self

    @model_validator(mode="after")
    def _sections_of_the_task(self) -> Self:
        is_classifier = self.task.kind == "classify"
        if (self.classifier is not None) != is_classifier:
            raise ValueError("task.kind: classify and the section classifier go together: give both or neither")
        if [self.pictures is None, self.texts is None].count(False) != is_classifier:
            raise ValueError(
                "task.kind: classify and a section of what is classified go together: give it with either pictures or "
                "texts, and without it neither"
            )
        if self.choose is not None and self.task.kind != "classify":
            raise ValueError("choose is for task.kind: classify, since its candidates are backbones of a classifier")
        if self.cross_validation is not None and self.task.kind != "classify":
            raise ValueError(
                "cross_validation is for task.kind: classify; a log is judged on what comes after a time, so move that "
                "back instead, in data.split"
            )
        if self.task.kind == "classify" and self.tune is not None and self.tune.data_share < 1:
            raise ValueError("tune.data_share is of users; of pictures fewer are trained on by pictures.train_share")
        if self.task.kind == "classify" and self.data_curve is not None:
            raise ValueError("data_curve is of users; of pictures fewer are trained on by pictures.train_share")
        if self.task.kind == "classify" and self.pretrain is not None:
            raise ValueError("pretrain is for task.kind: recommend; classifier.weights are the pretrained ones")
        return self

    @model_validator(mode="after")
    def _whole_fits_need_features(self) -> Self:
        if not any(phase.is_whole for phase in self.schedule.phases):
            return self
        given = self.classifier
        if given is None:
            raise ValueError("schedule: lbfgs fits the head of a classifier, and a recommender has none: take adamw")
        if not given.cached_views or given.head.kind == "conv":
            raise ValueError(
                "schedule: lbfgs fits a head on kept features, and none are kept with classifier.cached_views: 0 or a "
                "conv head: keep 1 or more views under a linear or mlp head, or take adamw"
            )
        return self

    @model_validator(mode="after")
    def _adapters_go_no_straight_way(self) -> Self:
        if self.schedule.wise and self.classifier is not None and self.classifier.lora is not None:
            raise ValueError(
                "schedule.wise: part of the way of a product of two matrices is not part of what it adds; leave it out "
                "with classifier.lora"
            )
        return self

    @model_validator(mode="after")
    def _texts_are_not_seen(self) -> Self:
        if self.texts is None or self.classifier is None:
            return self
        if not self.classifier.backbone.startswith("hf:"):
            raise ValueError("classifier.backbone: texts are read by an encoder of the transformers library, hf:...")
        given = self.classifier
        seen = given.augment != AugmentConfig() or given.test_mirrored
        if seen or given.cached_views > 1 or given.head.kind == "conv":
            raise ValueError(
                "classifier: augment, test_mirrored, several cached_views and the conv head are for pictures alone"
            )
        return self

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, without secrets."""
        text = yaml.safe_dump(dump(self), sort_keys=False, allow_unicode=True, width=100)
        if _MISREAD.isdisjoint(text):
            return text
        return yaml.safe_dump(dump(self), sort_keys=False, width=100)


def dump(section: BaseModel) -> dict[str, Any]:
    """A section as plain JSON types; secrets are left out, so it may be stored and hashed."""
    plain: dict[str, Any] = section.model_dump(mode="json")
    for storage in [plain] if isinstance(section, StorageConfig) else [plain.get("storage", {})]:
        for key in ("access_key_id", "secret_access_key"):
            storage.pop(key, None)
    return plain


def fingerprint(*parts: object) -> str:
    """16 hex digits of the SHA-256 of the canonical JSON of `parts` (sections are dumped first)."""
    plain = [dump(part) if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_config(
    path: str | Path | None, overrides: list[str] | tuple[str, ...] = (), section: str | None = None
) -> Config:
    """Read `path` (None: the defaults), apply `section.key=value` overrides (values are YAML) and check everything.

    An optional `section` that the file leaves out, or leaves empty, is begun with its defaults.

    Raises:
        ConfigError: one line per fault: the path of the key, what was given, what is allowed.
    """
    try:
        raw = read_tree(path) if path is not None else {}
    except TreeError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    if section is not None and raw.get(section) is None:
        overrides = [f"{section}={{}}", *overrides]  # the others may give what it needs
    config = parse_config(raw)
    return apply_overrides(config, overrides) if overrides else config


def parse_config(raw: dict[str, Any]) -> Config:
    """Check a plain mapping; raises `ConfigError` as `load_config` does."""
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(describe(error, Config)) from None
    if config.tune is not None:
        fixed = config.model_copy(update={"tune": None})
        if faults := config.tune.faults(lambda path, value: with_values(fixed, {path: value})):
            raise ConfigError(faults)
    return config


def with_values(config: Config, values: Mapping[str, object]) -> Config:
    """A new configuration with other values at some dotted paths, checked as a whole.

    Raises:
        ConfigError: a path that does not exist, a value that is not allowed.
    """
    return _changed(config, values.items(), [])


def apply_overrides(config: Config, overrides: list[str] | tuple[str, ...]) -> Config:
    """A new configuration with `a.b.0.c=value` applied in order, checked as a whole.

    Raises:
        ConfigError: a key that does not exist, a value that is not allowed, or text that is not `key=value`.
    """
    changes, faults = list[tuple[str, object]](), list[str]()
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            faults.append(f"{override}: an override is written key=value, for example train.num_workers=4")
            continue
        try:
            changes.append((key, parse_yaml(text)))
        except TreeError as error:
            faults.append(f"{key}: {error}")
    return _changed(config, changes, faults)


def _changed(config: Config, changes: Iterable[tuple[str, object]], faults: list[str]) -> Config:
    plain = config.model_dump()
    for key, value in changes:
        try:
            put(plain, key, value)
        except TreeError as error:
            faults.append(f"{key}: {error}")
    if faults:
        raise ConfigError(faults)
    return parse_config(plain)
