"""Description of a trained model: the ``config.json`` of a saved embedder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from polyanchor._errors import InputError
from polyanchor._io import reading
from polyanchor.config.schema import Above0, Config, Count, Finite, Section
from polyanchor.datasets.transforms import Aspect, ImageTransform, test_transform
from polyanchor.models.embedding import ModelPooling
from polyanchor.models.head import Neck
from polyanchor.runs.folder import RunFolder


class Preprocessing(Section):
    """From a decoded image to the network's input.

    Example:
        >>> Preprocessing(size=32, resize=36, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).transform().size
        32
    """

    size: Count
    """Side of the square that the network sees, in pixels."""
    resize: Count
    """Shorter side before the centre crop, in pixels; both sides if `aspect` is `squeeze`."""
    aspect: Aspect = "keep"
    """Keep the proportions and cut off the longer side's ends, or squeeze the whole image into the square."""
    interpolation: Literal["bilinear"] = "bilinear"
    """Of the resizing; the filter widens with the reduction (antialias)."""
    mean: tuple[Finite, Finite, Finite]
    """Subtracted from RGB values in [0, 1]."""
    std: tuple[Above0, Above0, Above0]
    """Divides what is left."""

    def transform(self) -> ImageTransform:
        """RGB image -> ``(3, size, size)`` float32."""
        return test_transform(size=self.size, resize=self.resize, aspect=self.aspect, mean=self.mean, std=self.std)

    def steps(self) -> list[str]:
        """Text of the steps before normalisation, for other programs."""
        side = "both sides become" if self.aspect == "squeeze" else "the shorter side becomes"
        return [
            "Turn the image upright as its EXIF orientation says; convert to RGB.",
            f"Resize so that {side} {self.resize} pixels, {self.interpolation} with antialias.",
            f"Take the middle {self.size} x {self.size} pixels.",
        ]


class Origin(Section):
    """The training run of a model."""

    run: str
    """Name of the run's folder."""
    source: str
    """Data source; only the last part of a path."""
    test_source: str = ""
    """Data source of the test classes, if it is another."""
    initial_weights: str = ""
    """Empty: random; `hub`: timm's pretrained weights; else the name of a file."""
    loss: dict[str, Any]
    """Name and keys of the loss."""
    epochs: Count
    """Passes over the training classes."""
    seed: Annotated[int, Field(ge=0)]
    """Of initialisation, batches, augmentation and held-out classes."""
    train_classes: tuple[str, ...]
    """Names of the training classes, or their ids."""
    validation_classes: int = 0
    """Number of training classes that were held out to choose the epoch."""
    test_classes: tuple[str, ...] = ()
    """Names of the test classes, or their ids."""
    results: dict[str, Any] | None = None
    """From the run's `results.json`: the measures on the test classes, how the epoch was chosen, versions, machine."""


class Description(Section):
    """A trained model without its weights.

    Example:
        >>> Description(backbone="none", embedding_dim=2).preprocessing is None
        True
    """

    format: Literal["polyanchor-embedder-1"] = "polyanchor-embedder-1"
    """Version of the format."""
    backbone: str
    """A timm model, or `none` for vectors."""
    pooling: ModelPooling = "avg+max"
    """Of the feature map; `own`: as the backbone was made."""
    neck: Neck = "none"
    """Between features and head."""
    embedding_dim: Count
    """Columns of the embedding."""
    preprocessing: Preprocessing | None = None
    """Of images; none for vectors."""
    channels_last: bool = True
    """Memory format of images and convolutions."""
    origin: Origin | None = None
    """The training run, if known."""


def read_description(file: Path) -> tuple[Description, str]:
    """Description and fingerprint from the ``config.json`` of a saved embedder.

    Raises:
        ValueError: not JSON, or not of an embedder; the message names the file.
    """
    content = _json(file)
    fingerprint = content.pop("fingerprint", None)
    if not isinstance(fingerprint, str):
        raise InputError(f"{file} is not that of a polyanchor embedder: it has no fingerprint")
    try:
        return Description.model_validate(content), fingerprint
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(
            f"{file} is not that of a polyanchor embedder, or of another version: "
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}, got {str(fault['input'])[:80]!r}"
        ) from error


def origin_of(folder: RunFolder, config: Config) -> Origin:
    """The training of a finished run. Of paths only the last part is kept, as descriptions get published."""
    split = folder.read_split()
    results = (
        folder.read_results() if folder.results.is_file() else {}
    )  # absent if the run was stopped before measuring
    published = "test", "before", "epoch", "point", "chosen_by", "validation", "environment"
    kept = {key: value for key, value in results.items() if key in published}
    sources = {source: without_folders(source) for source in (config.data.source, config.data.test) if source}
    if kept.get("test"):
        notes = kept["test"].get("notes", [])
        for source, short in sources.items():
            notes = [note.replace(source, short) for note in notes]
        kept["test"] = kept["test"] | {"notes": notes}
    weights = config.model.weights
    return Origin(
        run=folder.path.resolve().name,
        source=sources[config.data.source],
        test_source=sources.get(config.data.test, ""),
        initial_weights=weights if weights in ("", "hub") else Path(weights).name,
        loss=config.loss.model_dump(mode="json"),
        epochs=config.run.epochs,
        seed=config.run.seed,
        train_classes=_named(split.get("train_classes", []), split.get("class_names", {})),
        validation_classes=len(split.get("validation_classes", [])),
        test_classes=_named(split.get("test_classes", []), split.get("test_class_names", {})),
        results=kept or None,
    )


def without_folders(source: str) -> str:
    """A data source with the last part of its path alone.

    Example:
        >>> without_folders("folder:/home/ann/photos"), without_folders("cub200")
        ('folder:photos', 'cub200')
    """
    kind, colon, path = source.partition(":")
    return f"{kind}:{Path(path).name}" if colon else source


def _named(ids: list[int], names: dict[str, str]) -> tuple[str, ...]:
    return tuple(names.get(str(number), str(number)) for number in ids)


def _json(file: Path) -> dict[str, Any]:
    with reading(str(file)):
        content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold a JSON object, got {type(content).__name__}")
    return content
