"""Weights of a network of Keras from its h5 files, which are read as HDF5 alone: there is no code in them."""

import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ray_app.models.backbones import WeightsError, refuse


class Found(NamedTuple):
    """Shapes of a file's tensors by layer."""

    shapes: dict[str, list[tuple[int, ...]]]
    is_legacy: bool
    """In the form in which the weights of keras.applications are published; else as Keras 3 writes `.weights.h5`."""


def load_h5(model: Any, data: bytes) -> None:
    """Have Keras load a file of either form; what it would leave as it is, with a warning, is a fault.

    Raises:
        WeightsError: it is no such file, or one of another network: names and shapes that differ.
    """
    found = shapes_in(data)
    layers = model.layers if found.is_legacy else _leaves(model)
    expected = {layer.name: [tuple(one.shape) for one in layer.weights] for layer in layers if layer.weights}
    differences = _differences(found.shapes, expected)
    if sorted(found.shapes.values()) != sorted(expected.values()):  # else names alone differ, which Keras may number
        refuse(differences)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="error", category=UserWarning):
        path = Path(folder) / ("file.h5" if found.is_legacy else "file.weights.h5")
        path.write_bytes(data)
        try:
            model.load_weights(path)
        except (ValueError, KeyError, UserWarning) as error:
            refuse(differences or [str(error)])


def _leaves(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield from _leaves(layer) if hasattr(layer, "layers") else [layer]


def _differences(
    given: Mapping[str, list[tuple[int, ...]]], expected: Mapping[str, list[tuple[int, ...]]]
) -> list[str]:
    faults = [f"{name}: missing" for name in expected if name not in given]
    faults += [f"{name}: not a part of this network" for name in given if name not in expected]
    return faults + [
        f"{name}: {list(map(list, given[name]))} where the network has {list(map(list, shapes))}"
        for name, shapes in expected.items()
        if name in given and given[name] != shapes
    ]


def shapes_in(data: bytes) -> Found:
    """Layers and shapes, without the numbers.

    Raises:
        WeightsError: it is no such file.
    """
    import h5py  # noqa: PLC0415  comes with Keras

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            root = file.get("model_weights", file)  # of a whole model
            if "layer_names" in root.attrs:
                layers = {_text(name): root[_text(name)] for name in root.attrs["layer_names"]}
                shapes = {
                    name: [tuple(group[_text(one)].shape) for one in group.attrs["weight_names"]]
                    for name, group in layers.items()
                }
                return Found({name: some for name, some in shapes.items() if some}, is_legacy=True)
            groups: dict[str, list[tuple[int, ...]]] = {}

            def visit(path: str, group: object) -> None:
                if isinstance(group, h5py.Group) and path.endswith("/vars") and "seed_generator" not in path:
                    name = _text(group.attrs.get("name", path))
                    groups[name] = [tuple(group[one].shape) for one in sorted(group, key=int)]

            file.visititems(visit)
            return Found({name: some for name, some in groups.items() if some}, is_legacy=False)
    except (OSError, KeyError, ValueError) as error:
        raise WeightsError(f"\n  not an h5 file of weights as Keras writes them ({error})") from error


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
