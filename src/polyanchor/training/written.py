"""The JSON files that runs and comparisons write, read back: what a reader relies on is looked at once, here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from polyanchor._errors import InputError
from polyanchor.data.reading import reading


class Written(BaseModel):
    """Keys of a JSON object with their types. More keys may be there: other versions write others."""

    model_config = ConfigDict(extra="allow", strict=True)


class Measured(Written):
    """A report, see :func:`polyanchor.training.run_folder.as_json`."""

    means: dict[str, float | None]
    notes: list[str]
    queries: int = 0
    gallery: int = 0
    undefined: int = 0
    sub: Measured | None = None


class Results(Written):
    """``results.json``."""

    test: Measured
    epoch: int = 0
    chosen_by: str = ""
    validation: dict[str, float | None] | None = None
    epochs: list[dict[str, float | None]] | None = None
    seconds: float | None = None
    config: dict[str, dict[str, Any]] = {}
    environment: dict[str, Any] = {}


class Finished(Results):
    """``results.json`` of a run that is compared with others."""

    seconds: float
    config: dict[str, dict[str, Any]]


class SplitWritten(Written):
    """``split.json``."""

    train_classes: list[int]
    validation_classes: list[int]
    fingerprint: str = ""  # earlier versions wrote none
    source: str = ""
    contents: str = ""
    test_classes: list[int] = []
    class_names: dict[str, str] = {}
    test_class_names: dict[str, str] = {}
    changed: bool = False


def read_json(path: Path, kind: type[Written]) -> dict[str, Any]:
    """The content of a JSON file as it is there, once it has the keys of ``kind`` and their types.

    Raises:
        InputError: it has not, or is no JSON.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.json"
        >>> _ = file.write_text('{"means": {"mrr": 1}, "notes": []}')
        >>> read_json(file, Measured)
        {'means': {'mrr': 1}, 'notes': []}
    """
    with reading(str(path)):
        content = json.loads(path.read_text(encoding="utf-8"))
    try:
        kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise InputError(
            f"{path} is not what polyanchor writes: {where + ': ' if where else ''}{fault['msg']}, got "
            f"{str(fault['input'])[:60]!r}; put it back from a copy"
        ) from error
    assert isinstance(content, dict)  # nothing else is valid
    return content
