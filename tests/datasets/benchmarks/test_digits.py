import numpy as np
import pytest
from sklearn.datasets import load_digits

from polyanchor.datasets.benchmarks.digits import write_digits
from polyanchor.datasets.sources import open_source


def test_the_digits_are_scikit_learns():
    split = open_source("digits")
    target = load_digits().target
    assert split.train.labels.tolist() == [d for d in target if d < 5]
    assert split.test.labels.tolist() == [d for d in target if d >= 5]
    assert split.notes == ()
    first = np.asarray(split.train.inputs.read(0))
    assert first.shape == (8, 8, 3)
    assert np.abs(first[..., 0] - load_digits().images[0] * 255 / 16).max() <= 0.5
    assert split.train.class_names[3] == "3"


@pytest.mark.slow
def test_the_written_folder_holds_the_same(tmp_path):
    assert write_digits(tmp_path / "digits") == 1797
    written, embedded = open_source(f"folder:{tmp_path / 'digits'}"), open_source("digits")
    for part in ("train", "test"):
        ours, theirs = getattr(written, part), getattr(embedded, part)
        assert sorted(ours.labels.tolist()) == sorted(theirs.labels.tolist())
    row = [embedded.train.name(n) for n in range(len(embedded.train))].index(written.train.name(7)[:-4])
    assert np.array_equal(written.train.inputs.read(7), embedded.train.inputs.read(row))
