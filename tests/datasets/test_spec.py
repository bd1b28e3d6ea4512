"""Bare paths to names of data sources."""

import pytest

from polyanchor.datasets.formats.vectors import SUFFIXES
from polyanchor.datasets.sources import KNOWN, open_source
from polyanchor.datasets.spec import KINDS, NAMES, source_spec


@pytest.mark.parametrize(
    ("source", "spec"),
    [
        ("photos", "folder:photos"),
        ("photos/", "folder:photos/"),
        ("photos.v2", "folder:photos.v2"),
        ("tables", "parquet:tables"),
        ("missing/", "folder:missing/"),
        ("missing", "missing"),
        ("a/b.CSV", "csv:a/b.CSV"),
        ("x.parquet", "parquet:x.parquet"),
        ("x.jpg", "x.jpg"),
        ("digits", "digits"),
        ("folder:digits", "folder:digits"),
        ("", ""),
        *((f"x{suffix}", f"features:x{suffix}") for suffix in SUFFIXES),
    ],
)
def test_a_source(source, spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "photos.v2", "tables", "digits"):
        (tmp_path / name).mkdir()
    (tmp_path / "tables" / "0.parquet").write_bytes(b"")
    assert source_spec(source) == spec == source_spec(spec)


def test_every_source_has_its_name_here():
    assert {info.name.partition(":")[0] for info in KNOWN} == {*NAMES, *KINDS}


def test_python_takes_bare_paths_too(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no|no image"):
        open_source(str(tmp_path / "empty"))
