"""Options that stand for a key of the configuration, and whether they can apply."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from polyanchor._errors import InputError


def changed(
    settings: Sequence[str] | None, *, on_bad_image: str, run: Path | None = None, data: str = ""
) -> tuple[str, ...]:
    """The ``--set`` options, followed by what ``--on-bad-image`` stands for.

    Args:
        settings: as they were given.
        on_bad_image: likewise; refused where the data of ``run``, or the ``data`` in their place, are vectors.
        run: folder of a run, if there is one.
        data: another source.

    Example:
        >>> changed(["run.epochs=3"], on_bad_image="skip")
        ('run.epochs=3', 'data.on_bad_image=skip')
    """
    changes = (*(settings or ()), *([f"data.on_bad_image={on_bad_image}"] if on_bad_image else []))
    if on_bad_image and data:
        require_images([data], on_bad_image)
    elif on_bad_image and run is not None:
        from polyanchor.training.run_folder import RunFolder

        require_images([RunFolder(run).read_config(changes).data.source], on_bad_image)
    return changes


def require_images(sources: Iterable[str], on_bad_image: str) -> None:
    """Refuse ``--on-bad-image`` where no source holds images."""
    named = list(sources)
    if on_bad_image and named and all(one.startswith("features:") for one in named):
        raise InputError(f"--on-bad-image is about images, and {named[0]} holds vectors; leave it out")


def refuse_unused(data: Sequence[str], root: Path | None, allow_partial: bool) -> None:
    """Refuse ``--root`` without a benchmark, and ``--allow-partial`` without one or a list, among the sources."""
    from polyanchor.data.sources import BENCHMARKS

    kinds = {one.partition(":")[0] for one in data}
    for option, given, takers in (
        ("--root", root, BENCHMARKS),
        ("--allow-partial", allow_partial, (*BENCHMARKS, "csv:FILE")),
    ):
        if given and not kinds & {taker.partition(":")[0] for taker in takers}:
            raise InputError(f"{option} is for {', '.join(takers)}, got {' '.join(data) or 'no data'}; leave it out")
