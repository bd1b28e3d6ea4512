"""The same for the TensorBoard projector: its four files."""

from __future__ import annotations

import io
import math
import shutil
from pathlib import Path
from typing import Any

from polyanchor._io import unfinished_name
from polyanchor._optional import load

_SPRITE, _LARGEST = 8192, 64  # pixels: the largest texture that browsers take, and a thumbnail in it

_CONFIG = """embeddings {
  tensor_name: "vectors"
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
%s}
"""


def write_projector(file: Path, folder: Path) -> None:
    """Write ``vectors.tsv``, ``metadata.tsv``, ``projector_config.pbtxt`` and, for images, ``sprite.png``.

    The folder is replaced as a whole.

    Args:
        file: from :func:`polyanchor.runs.embed_parts.write_parquet`.
        folder: where to.
    """
    table = load("pyarrow.parquet", "train").read_table(file)
    unfinished = unfinished_name(folder)
    unfinished.mkdir(parents=True)
    width = len(table["vector"][0])
    flat = load("pyarrow.compute", "train").list_flatten(table["vector"]).to_numpy().reshape(-1, width)
    load("numpy", "train").savetxt(unfinished / "vectors.tsv", flat, fmt="%.6g", delimiter="\t")
    columns = [name for name in table.column_names if name not in ("vector", "image")]
    lines = ["\t".join(columns)]
    lines += ["\t".join(map(_cell, row)) for row in zip(*(table[name].to_pylist() for name in columns), strict=True)]
    (unfinished / "metadata.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sprite = ""
    if "image" in table.column_names:
        side = _write_sprite(table["image"], unfinished / "sprite.png")
        sprite = f'  sprite {{\n    image_path: "sprite.png"\n    single_image_dim: [{side}, {side}]\n  }}\n'
    (unfinished / "projector_config.pbtxt").write_text(_CONFIG % sprite, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def _cell(value: Any) -> str:
    """A value without the characters that divide cells and rows."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else " ".join(str(value).split())


def _write_sprite(cells: Any, file: Path) -> int:
    """All thumbnails in one square image, row after row; gives the side of one."""
    pil, ops = load("PIL.Image", "train"), load("PIL.ImageOps", "train")
    across = math.ceil(math.sqrt(len(cells)))
    side = min(_LARGEST, _SPRITE // across)
    sprite = pil.new("RGB", (across * side, across * side), "white")
    for number, cell in enumerate(cells):
        with pil.open(io.BytesIO(cell["bytes"].as_py())) as image:
            place = number % across * side, number // across * side
            sprite.paste(ops.pad(image, (side, side), color="white"), place)
    sprite.save(file)
    return side
