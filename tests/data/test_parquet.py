import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from polyanchor.data.parquet import read
from polyanchor.data.sources import open_source


def png(shade):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(stream, "PNG")
    return stream.getvalue()


def test_parquet_file_with_bare_bytes_and_texts(tmp_path):
    rows = {"image": [png(n) for n in range(4)], "labels": ["b", "a", "b", "a"]}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    split = open_source(f"parquet:{tmp_path / 'x.parquet'}")
    assert (split.train.class_names, split.train.labels.tolist()) == ({0: "a", 1: "b"}, [0, 0])
    assert split.train.inputs.read(1).getpixel((0, 0)) == (3, 3, 3)
    assert split.train.name(1) == "x[3]"


def test_parquet_folder_in_parts(tmp_path):
    for name, labels in {
        "train-00000-of-00002": [1, 2],
        "train-00001-of-00002": [3],
        "test-0": [8, 8, 9],
        "dev-0": [5],
    }.items():
        cells = [{"bytes": png(n), "path": f"{n}.png"} for n in labels]
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.table({"img": cells, "label": labels}), tmp_path / "data" / f"{name}.parquet")
    split = open_source(f"parquet:{tmp_path}")
    assert (split.train.labels.tolist(), split.test.labels.tolist()) == ([1, 2, 3], [8, 8, 9])
    assert split.test.name(2) == "9.png"
    assert split.test.inputs.read(2).getpixel((0, 0)) == (9, 9, 9)
    assert "dev-0.parquet" in split.notes[0]


@pytest.mark.parametrize("shards", [1, 2])
def test_files_of_one_part_are_no_split(tmp_path, shards):
    for shard in range(shards):
        rows = {"image": [png(0)] * 4, "label": [0, 0, 1, 1]}
        pq.write_table(pa.table(rows), tmp_path / f"train-{shard:05}-of-{shards:05}.parquet")
    split = open_source(f"parquet:{tmp_path}")
    assert (split.train.classes.tolist(), split.test.classes.tolist()) == ([0], [1])
    assert len(split.test) == 2 * shards


def test_unlabelled_test_files_do_not_shift_the_training_ids(tmp_path):
    for name, labels in {"train-0": [0, 1, 2], "test-0": [-1, -1]}.items():
        rows = {"image": [png(0)] * len(labels), "label": labels}
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match="got -1; leave out the items without a class"):
        open_source(f"parquet:{tmp_path}")


def test_a_damaged_file_is_named(tmp_path):
    pq.write_table(pa.table({"image": [png(0)], "label": [0]}), tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    for damaged in (b"", b"text", content[:-20], content[:50] + bytes(100) + content[150:]):
        (tmp_path / "x.parquet").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.parquet: "):
            read(tmp_path / "x.parquet")


def test_parquet_split_column(tmp_path):
    rows = {"image": [png(0)] * 3, "label": [0, 1, 1], "split": ["train", "test", "test"]}
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    assert open_source(f"parquet:{tmp_path}").test.labels.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"picture": [b""], "label": [0]},
            "an image column is missing: expected one called image or img, got picture",
        ),
        ({"image": [b""], "class": [0]}, "a label column is missing"),
        ({"image": ["a.png"], "label": [0]}, "must hold encoded bytes, got string"),
        ({"image": [{"path": "a.png"}], "label": [0]}, "must hold encoded bytes, got struct"),
        ({"image": [b"", b""], "label": [0, None]}, "label is empty in 1 rows"),
        ({"image": [b""] * 3, "label": [10, 9, -1]}, "labels must be class ids of 0 or more, got -1"),
        ({"image": [b"", b""], "label": [0.0, 1.0]}, "labels must be integers or texts, got float"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "has no rows"),
    ],
)
def test_parquet_errors(tmp_path, rows, message):
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=f"parquet:.*x.parquet.*{message}"):
        read(tmp_path / "x.parquet")


def test_parquet_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder that holds .parquet files"):
        read(tmp_path / "gone")
