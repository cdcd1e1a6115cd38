"""What is known of an item besides its id, and which frozen networks read it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ray_app.data_config import Positive
from ray_app.picture_config import PRETRAINED, BackboneName, Side, check_weights
from ray_app.schedule import Section

LabelName = Literal["brand", "category", "price"]


class ContentConfig(Section):
    """An item is what its text, its picture and its labels say, as far as they are named here, and what its id adds."""

    text: Annotated[str, Field(pattern=r"^hf:.+")] | None = None
    """Encoder of title, description, brand and category: `hf:` and a folder, an s3:// folder, or an id of the hub."""
    max_tokens: Positive = 128
    """Of a longer text the beginning is read."""
    image: BackboneName | None = None
    """Encoder of pictures, as `classifier.backbone`: `torchvision:`, `timm:`, or `hf:` and one of pictures."""
    image_weights: str = PRETRAINED
    """As `classifier.weights`."""
    image_size: Side = 224
    """Side of the square that it is shown."""
    labels: tuple[LabelName, ...] = ()
    """Columns whose labels have vectors that are learned; of prices in tenths of the catalogue, cheapest first."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.text is None and self.image is None and not self.labels:
            raise ValueError("content needs text, image or labels, at least one of them")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels: each column once, and not {', '.join(self.labels)}")
        if self.image is not None:
            check_weights(self.image, self.image_weights)
        return self
