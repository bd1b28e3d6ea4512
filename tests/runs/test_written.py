"""JSON files read back: what is accepted, and how damage is said."""

import json

import pytest

from polyanchor._errors import InputError
from polyanchor.runs.folder import Results, SplitWritten, read_json

GOOD = {
    "epoch": 1,
    "test": {"means": {"mrr": None, "recall@1": 1}, "notes": ["a"], "later": 1},
    "epochs": [{"loss": 2.5}],
}


def test_what_is_there_comes_back_as_it_is(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(GOOD))
    assert read_json(tmp_path / "r.json", Results) == GOOD


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"\xff", "expected UTF-8 text"),
        (b"[" * 100_000, "damaged or of another format"),
        (b"9" * 5000, "4300"),
        (b"[]", "is not what polyanchor writes: Input should be a valid dictionary"),
        (b"{}", "is not what polyanchor writes: test: Field required"),
        (b'{"test": {"means": {"mrr": "1"}, "notes": []}}', "test.means.mrr: Input should be a valid number, got '1'"),
        (b'{"test": {"means": {}, "notes": "ab"}}', "test.notes: Input should be a valid list"),
        (
            b'{"test": {"means": {}, "notes": []}, "epoch": 1, "chosen_by": "", "epochs": [1]}',
            "epochs.0: Input should be a valid dictionary",
        ),
    ],
)
def test_anything_else_names_the_file_first(tmp_path, content, said):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_json(tmp_path / "r.json", Results)
    assert str(raised.value).startswith(str(tmp_path / "r.json"))
    assert said in str(raised.value)


def test_a_split_needs_its_classes(tmp_path):
    (tmp_path / "s.json").write_text('{"fingerprint": "a", "train_classes": [1.5], "validation_classes": []}')
    with pytest.raises(InputError, match=r"train_classes\.0: Input should be a valid integer, got '1.5'"):
        read_json(tmp_path / "s.json", SplitWritten)
