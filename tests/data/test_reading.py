import csv
import errno
import zlib
from zipfile import BadZipFile

import pytest

from polyanchor.data.reading import reading, text_lines


def raised(error, *more):
    with pytest.raises(ValueError) as caught, reading("a file", *more):
        raise error
    assert caught.value is error or caught.value.__cause__ is error
    return str(caught.value)


@pytest.mark.parametrize("kind", [csv.Error, zlib.error, BadZipFile, EOFError, OSError])
def test_damage_is_bad_input(kind):
    assert raised(kind("so it is")) == "a file: damaged or of another format: so it is"
    assert raised(kind()).endswith(kind.__name__)
    assert "damaged" in raised(OSError(errno.EINVAL, "Invalid argument"))


def test_a_value_gets_the_name_once():
    assert raised(ValueError("too long")) == "a file: too long"
    assert raised(TypeError("no integers")) == "a file: no integers"
    assert raised(ValueError("a file: too long")) == "a file: too long"


def test_errors_of_the_package_at_work_are_given():
    assert raised(NotImplementedError("v8"), NotImplementedError).endswith("v8")
    with pytest.raises(NotImplementedError), reading("a file"):
        raise NotImplementedError


def test_the_systems_own_errors_pass():
    with pytest.raises(PermissionError), reading("a file"):
        raise PermissionError(errno.EACCES, "no", "x")


def test_lines_of_a_text(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"a\r\nb")
    assert text_lines(tmp_path / "x.txt") == ["a", "b"]
    (tmp_path / "x.txt").write_bytes(b"a\xff")
    with pytest.raises(ValueError, match=r"x\.txt: expected UTF-8 text, got the byte 0xff at 1"):
        text_lines(tmp_path / "x.txt")
