"""What the parts of a configuration have in common."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, model_validator

Above0 = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
AtLeast0 = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-1e30, le=1e30, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, raw: Any) -> Any:
        """``run.k = 10`` is ``run.k = [10]``."""
        if not isinstance(raw, dict):
            return raw
        plain = {key: _plain(value) for key, value in raw.items()}
        return {key: [value] if cls._lists(key) and _single(value) else value for key, value in plain.items()}

    @classmethod
    def _lists(cls, key: str) -> bool:
        field = cls.model_fields.get(key)
        return field is not None and get_origin(field.annotation) is tuple and Ellipsis in get_args(field.annotation)


def _plain(value: Any) -> Any:
    """Numbers of NumPy and torch, also within lists, as Python's: the file of the configuration knows no others."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value.item() if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0 else value


def _single(value: Any) -> bool:
    return isinstance(value, (str, int, float))
