"""Short titles of tests: categories that differ in their nouns, as a catalogue and as a prepared set."""

from pathlib import Path

from ray_app.config import Config, StorageConfig, parse_config
from ray_app.data.picture_set import PictureSet
from ray_app.data.pictures import prepare_pictures
from ray_app.storage import Storage

NOUNS = {
    "dairy": ("milk", "butter", "cheese", "yoghurt", "cream"),
    "drinks": ("wine", "juice", "cola", "water", "cider"),
    "tools": ("hammer", "saw", "drill", "pliers", "wrench"),
}
KINDS = ("red", "small", "fresh", "large", "organic", "swiss", "cheap", "light")
TITLES = {f"{kind} {noun}": name for name, nouns in NOUNS.items() for noun in nouns for kind in KINDS}


def write_catalogue(path: Path) -> None:
    """One row for each title."""
    rows = [f"{100 + number},{title},{name}" for number, (title, name) in enumerate(TITLES.items())]
    path.write_text("\n".join(["item_id,title,category", *rows]))


def text_config(folder: Path, encoder: Path | str, **classifier: object) -> Config:
    """Titles of `folder` for the encoder."""
    given = {"backbone": f"hf:{encoder}", "batch_size": 16, "max_tokens": 16, **classifier}
    return parse_config(
        {
            "name": "titles",
            "storage": {"path": str(folder / "runs")},
            "task": {"kind": "classify"},
            "data": {"events": str(folder / "catalogue.csv")},
            "texts": {},
            "classifier": given,
            "train": {"cpus_per_worker": 1},
        }
    )


def text_set(folder: Path) -> PictureSet:
    """The catalogue, prepared in this process."""
    write_catalogue(folder / "catalogue.csv")
    config = text_config(folder, "any")
    return prepare_pictures(Storage.from_config(StorageConfig(path=str(folder / "runs"))), "titles", config)
