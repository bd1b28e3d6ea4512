import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from polyanchor.datasets.sources import open_source


def write(file, fine, coarse):
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (fine[0], 0, 0)).save(stream, "PNG")
    cells = [{"bytes": stream.getvalue(), "path": None} for _ in fine]
    table = pa.table({"img": cells, "fine_label": fine, "coarse_label": coarse})
    names = {
        "fine_label": {"names": [f"fine {n}" for n in range(100)]},
        "coarse_label": {"names": ["c0", "c1"]},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": names}})}
    pq.write_table(table.replace_schema_metadata(metadata), file)


def test_fine_and_coarse_labels(tmp_path):
    (tmp_path / "cifar100").mkdir()
    write(tmp_path / "cifar100" / "train-00000-of-00001.parquet", [5, 9, 5], [1, 0, 1])
    write(tmp_path / "cifar100" / "test-00000-of-00001.parquet", [9, 9], [0, 0])
    split = open_source("cifar100", root=tmp_path, allow_partial=True)
    assert (split.train.labels.tolist(), split.test.labels.tolist()) == ([5, 9, 5], [9, 9])
    assert split.train.class_names[9] == "fine 9"
    assert split.test.inputs.read(1).getpixel((0, 0)) == (9, 0, 0)
    assert split.notes[-1] == "closed set: test classes were trained on"
    coarse = open_source("cifar100", root=tmp_path / "cifar100", allow_partial=True, labels="coarse")
    assert (coarse.train.labels.tolist(), coarse.test.labels.tolist()) == ([1, 0, 1], [0, 0])
    assert coarse.train.class_names[1] == "c1"
    with pytest.raises(ValueError, match="cifar100/train: expected 50,000 images of 100 classes"):
        open_source("cifar100", root=tmp_path)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"looked for train.*parquet and test.*parquet"):
        open_source("cifar100", root=tmp_path)
    with pytest.raises(ValueError, match="labels must be one of 'fine', 'coarse', got 'corse'; did you mean 'coarse'"):
        open_source("cifar100", root=tmp_path, labels="corse")


@pytest.mark.data
def test_the_half_that_lies_here(real):
    fine = open_source("cifar100", root=real / "cifar100_25k", allow_partial=True)
    assert (len(fine.train), len(fine.test)) == (20_000, 5_000)
    assert fine.train.labels.bincount().tolist() == [200] * 100
    assert fine.test.labels.bincount().tolist() == [50] * 100
    assert fine.train.class_names[99] == "worm"
    coarse = open_source("cifar100", root=real / "cifar100_25k", allow_partial=True, labels="coarse")
    assert coarse.train.labels.bincount().tolist() == [1000] * 20
    # every fine class lies in one coarse class, five in each
    pairs = {*zip(fine.train.labels.tolist(), coarse.train.labels.tolist(), strict=True)}
    assert len(pairs) == 100
    assert fine.train.inputs.read(19_999).size == (32, 32)
