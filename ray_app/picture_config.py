"""Labelled pictures and texts: how they are read, split, shown to the network, and what network it is."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ray_app.data_config import Positive
from ray_app.schedule import Section

Side = Annotated[int, Field(ge=32, le=1024)]
"""Pixels."""
BackboneName = Annotated[str, Field(pattern=r"^((torchvision|timm|keras):[A-Za-z0-9_.\-/]+|hf:.+)$")]
PRETRAINED = "pretrained"
"""Weights that the library of a backbone offers."""


def check_weights(backbone: str, weights: str | None) -> None:
    """Refuse a file of weights beside an encoder that brings its own."""
    if backbone.startswith("hf:") and weights not in (None, PRETRAINED):
        raise ValueError("weights of an hf: backbone are those in its folder: `pretrained`, or unset for random ones")


class LabelColumns(Section):
    """The retailer's name for each of our columns. All but `label` are read when the file has them."""

    label: str = "label"
    """Required: what is learned."""
    group: str = "group"
    """A coarser label; all pictures of a label have the same."""
    key: str = "key"
    """What predictions are written by. Unset: the path of the picture, or its file and row."""
    part: str = "part"
    """train, validation or test, where somebody has decided; else the name of the file or folder may say so."""
    fold_by: str = "fold_by"
    """What `cross_validation` keeps together (grouped: a store, a product) or puts in order (time_series)."""


class PictureColumns(LabelColumns):
    """Beside `label`, a file must have `image`."""

    image: str = "image"
    """Bytes of a picture, or its path or URI (relative to the file that names it)."""


class TextColumns(LabelColumns):
    """Those of a catalogue: beside `label`, a file must have `title`. A text is what there is of the first three."""

    title: str = "title"
    """Required."""
    description: str = "description"
    """Added to the title."""
    brand: str = "brand"
    """Added to the title."""
    label: str = "category"
    """Required: what is learned."""
    key: str = "item_id"
    """What predictions are written by."""


class AugmentConfig(Section):
    """Random changes of training pictures, anew each time one is shown."""

    crop: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Smallest share of the picture that a random crop keeps; 1: no random crop."""
    flip: bool = True
    """Mirror every second picture."""
    color: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength of changes of brightness, contrast and saturation."""
    rand_augment: Annotated[int, Field(ge=0, le=30)] = 0
    """Magnitude of RandAugment (arXiv 1909.13719); 0: none."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a rectangle is erased (arXiv 1708.04896)."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of mixup (arXiv 1710.09412); 0: none."""
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of CutMix (arXiv 1905.04899); 0: none. With both, each batch is mixed by either."""


class SharesConfig(Section):
    """How labelled pictures or texts are divided."""

    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of each label's pictures, where nobody has decided; equal pictures stay in one part."""
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Likewise, of each label."""
    train_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Train on so much of each label's training pictures alone: what a learning curve varies."""


class PicturesConfig(SharesConfig):
    """Pictures of `data.events`: a folder of folders named by label, or parquet, CSV or JSON lines with columns."""

    columns: PictureColumns = PictureColumns()
    stored_side: Side = 256
    """Larger pictures are kept with a shorter side of so many pixels."""
    max_pixels: Positive = 100_000_000
    """Pictures that claim more are refused unread."""


class TextsConfig(SharesConfig):
    """Texts of `data.events`: a catalogue in parquet, CSV or JSON lines."""

    columns: TextColumns = TextColumns()
    distinct: bool = True
    """Of equal texts in a part one is kept, with the label that most have: variants of a product say nothing new."""


class HeadConfig(Section):
    """New layers on the backbone."""

    kind: Literal["linear", "mlp", "conv"] = "linear"
    """mlp: one hidden layer; conv: a 3x3 convolution on the feature map before it is pooled."""
    hidden: Positive = 512
    """Width of the hidden layer, or channels of the convolution."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Before the last layer."""


class LoraConfig(Section):
    """Adapters of an `hf:` encoder that is frozen otherwise, under the names that PEFT has for their settings."""

    r: Positive = 8
    """Rank of what is added to a layer."""
    lora_alpha: Positive = 16
    """What is added counts lora_alpha / r times."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """On what an adapter reads."""
    target_modules: tuple[str, ...] = ()
    """Ends of the names of the linear layers that have one, such as query; unset: all linear layers."""


class ClassifierConfig(Section):
    """A pretrained network with a new head, and what it is shown. Sides and `augment` are for pictures alone."""

    backbone: BackboneName = "torchvision:resnet50"
    """`torchvision:` or `timm:` and the name of a classifier of that library; `keras:` and a network of
    keras.applications; `hf:` and an encoder of the transformers library, of pictures or of texts: a folder, an s3://
    folder, or an id of the hub."""
    weights: str | None = PRETRAINED
    """A safetensors file or folder, local or s3://, for `keras:` also an .h5 file without top; `pretrained`: what the
    library offers, or the folder of an `hf:` encoder holds; unset: random."""
    head: HeadConfig = HeadConfig()
    lora: LoraConfig | None = None
    """Train adapters in place of the backbone's own weights, which no phase moves then: `^backbone` matches the
    adapters alone, and l2_sp holds them to nothing learned. What is published has them merged."""
    size: Side = 224
    """Side of the square that training shows."""
    test_size: Side | None = None
    """Side that validation and test show, where larger is better; unset: `size`."""
    test_mirrored: bool = False
    """Evaluation and predictions also look at each picture's mirror image, and take the mean of both answers."""
    max_tokens: Annotated[int, Field(ge=8)] = 64
    """Of a longer text the beginning is read."""
    batch_size: Annotated[int, Field(ge=2)] = 32
    """Pictures or texts per worker and step."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a picture's mass that is spread over all labels."""
    calibrate: bool = True
    """Before a model is published, its logits are made sharper or flatter until the validation part finds them
    likeliest (temperature scaling): answers stay as they are, and how sure they are becomes true."""
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far rare labels count for more: 0 each picture alike, 1 each label alike."""
    augment: AugmentConfig = AugmentConfig()
    cached_views: Annotated[int, Field(ge=0)] = 1
    """While the backbone is frozen, its outputs are computed once: of each picture as it is (1), or of so many
    augmented views. 0: computed in each epoch anew."""

    @model_validator(mode="after")
    def _encoders_bring_their_weights(self) -> Self:
        check_weights(self.backbone, self.weights)
        return self

    @model_validator(mode="after")
    def _adapters_need_an_encoder(self) -> Self:
        if self.lora is not None and (not self.backbone.startswith("hf:") or self.weights is None):
            raise ValueError("lora adapts a pretrained transformer: it needs weights and backbone: hf:...")
        return self

    def from_scratch(self) -> Self:
        """The same network with random weights, which are all trained."""
        return self.model_copy(update={"weights": None, "lora": None})


class Candidate(Section):
    """A backbone that may suit the pictures, shown to them as `classifier` says."""

    backbone: BackboneName
    """As `classifier.backbone`."""
    weights: str = PRETRAINED
    """As `classifier.weights`."""

    @model_validator(mode="after")
    def _encoders_bring_their_weights(self) -> Self:
        check_weights(self.backbone, self.weights)
        return self


class ChooseConfig(Section):
    """Backbones that `jobs/choose.py` ranks for the pictures."""

    candidates: tuple[Candidate, ...] = ()
    """At least two."""


class CrossValidationConfig(Section):
    """Folds of the train part, each told by a model that learned from the others (`jobs/cross_validate.py`).

    The validation part chooses epochs in all of them, and the test part is left alone.
    """

    folds: Annotated[int, Field(ge=2)] = 5
    """So many models are trained."""
    kind: Literal["stratified", "grouped", "plain", "time_series"] = "stratified"
    """stratified: each fold has its share of every label; plain: of all alike; grouped: what has the same
    `columns.fold_by` stays together; time_series: by `columns.fold_by`, each fold told by what is earlier alone."""
