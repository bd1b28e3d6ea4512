"""Options that stand for a key of the configuration."""

from __future__ import annotations

from collections.abc import Sequence


def changed(settings: Sequence[str] | None, *, on_bad_image: str) -> tuple[str, ...]:
    """The ``--set`` options, followed by what ``--on-bad-image`` stands for.

    Example:
        >>> changed(["run.epochs=3"], on_bad_image="skip")
        ('run.epochs=3', 'data.on_bad_image=skip')
    """
    return (*(settings or ()), *([f"data.on_bad_image={on_bad_image}"] if on_bad_image else []))
