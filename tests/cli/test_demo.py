"""`polyanchor demo` for one epoch; the whole of it is `make demo`."""

import pytest

from polyanchor.cli.app import run


@pytest.mark.slow
def test_it_writes_images_trains_and_prints_the_table(tmp_path, capsys):
    assert run(["demo", "--out", str(tmp_path / "demo"), "--epochs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "MAP@R" in out
    assert "wrote 1797 images" in err
    assert len(list((tmp_path / "demo" / "digits").rglob("*.png"))) == 1797
    assert run(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert "is not empty" in capsys.readouterr().err
