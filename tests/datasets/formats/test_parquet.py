import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from polyanchor.datasets.formats.parquet import read
from polyanchor.datasets.sources import open_source


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


def test_parquet_errors(subtests, tmp_path):
    for rows, message in (
        (
            {"picture": [b""], "label": [0]},
            "an image column is missing: expected one called image or img, got picture",
        ),
        ({"image": [b""], "class": [0]}, "a label column is missing"),
        ({"image": ["a.png"], "label": [0]}, "1 of 1 listed images are missing, the first is a.png"),
        ({"image": [{"path": "a.png"}], "label": [0]}, "1 of 1 listed images are missing, the first is a.png"),
        ({"image": [3], "label": [0]}, "must hold encoded bytes, or paths of files, got int64"),
        ({"image": ["a.png", None], "label": [0, 0]}, "the path of an image is empty in 1 rows"),
        ({"image": [b"", b""], "label": [0, None]}, "label is empty in 1 rows"),
        ({"image": [b""] * 3, "label": [10, 9, -1]}, "labels must be class ids of 0 or more, got -1"),
        ({"image": [b"", b""], "label": [0.0, 1.0]}, "labels must be integers or texts, got float"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "has no rows"),
    ):
        with subtests.test(message):
            pq.write_table(pa.table(rows), tmp_path / "x.parquet")
            with pytest.raises(ValueError, match=f"parquet:.*x.parquet.*{message}"):
                read(tmp_path / "x.parquet")


def test_parquet_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder that holds .parquet files"):
        read(tmp_path / "gone")


def shard(file, labels, **more):
    file.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": png(n), "path": f"{n}.png"} for n in labels]
    pq.write_table(pa.table({"image": cells, "label": labels} | more), file)


def test_shards_that_differ_in_what_does_not_matter(tmp_path):
    shard(tmp_path / "train-0.parquet", [1, 2])
    kind = pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())])
    other = {
        "label": pa.array([3], pa.int16()),
        "extra": ["x"],
        "image": pa.array([{"path": "3", "bytes": png(3)}], kind),
    }
    pq.write_table(pa.table(other), tmp_path / "train-1.parquet")
    labels = pa.array([4, 5], pa.uint64()).dictionary_encode()
    pq.write_table(
        pa.table({"label": labels, "image": [{"bytes": png(n), "path": "p"} for n in (4, 5)]}),
        tmp_path / "train-2.parquet",
    )
    items = read(tmp_path).items
    assert items.labels.tolist() == [1, 2, 3, 4, 5]
    assert [items.inputs.read(row).getpixel((0, 0))[0] for row in range(5)] == [1, 2, 3, 4, 5]


def test_shards_that_do_not_fit_are_named(subtests, tmp_path):
    for other, message in (
        (
            {"image": [{"bytes": b"", "path": ""}], "label": ["a"]},
            "its column label holds string, that of train-0.parquet int64",
        ),
        ({"image": [b""], "label": [1]}, "its column image holds large_binary, that of train-0.parquet struct"),
        (
            {"image": [{"bytes": b"", "path": ""}], "labels": [1]},
            "it has the columns image, labels, and train-0.parquet has",
        ),
        ({"image": [{"bytes": b"", "path": ""}]}, "a label column is missing"),
    ):
        with subtests.test(message):
            shard(tmp_path / "train-0.parquet", [1, 2])
            pq.write_table(pa.table(other), tmp_path / "train-1.parquet")
            with pytest.raises(ValueError, match=rf"^parquet:.*train-1\.parquet: {message}"):
                read(tmp_path)


def test_shards_whose_metadata_name_other_classes(tmp_path):
    for number, names in enumerate((["cat", "dog"], ["dog", "cat"])):
        said = f'{{"info": {{"features": {{"label": {{"names": ["{names[0]}", "{names[1]}"]}}}}}}}}'
        table = pa.table({"image": [png(0)], "label": [0]}).replace_schema_metadata({"huggingface": said})
        pq.write_table(table, tmp_path / f"train-{number}.parquet")
    with pytest.raises(ValueError, match=r"train-1\.parquet: its metadata names other classes than that of train-0"):
        read(tmp_path)


@pytest.mark.parametrize(
    "layout",
    [
        "data/{}-00000-of-00001.parquet",
        "default/{}/0000.parquet",
        "{}/0000.parquet",
        "default/partial-{}/0000.parquet",
        "{}.PARQUET",
    ],
)
def test_parts_as_hugging_face_lays_them_out(subtests, tmp_path, layout):
    for words in (("train", "validation", "test"), ("Train", "VAL", "Test"), ("train", "valid", "test")):
        with subtests.test(words[1]):
            folder = tmp_path / words[1]
            for word, labels in zip(words, ([1, 2, 2], [5, 5], [8, 8]), strict=True):
                shard(folder / layout.format(word), labels)
            split = open_source(f"parquet:{folder}")
            assert (split.train.labels.tolist(), split.test.labels.tolist()) == ([1, 2, 2], [8, 8])
            assert split.validation.labels.tolist() == [5, 5]


def test_train_and_validation_alone(tmp_path):
    shard(tmp_path / "default/train/0000.parquet", [1, 2])
    shard(tmp_path / "default/validation/0000.parquet", [5, 5])
    split = open_source(f"parquet:{tmp_path}")
    assert (split.test.labels.tolist(), split.validation) == ([5, 5], None)
    assert "validation is what the measures are taken on" in " ".join(split.notes)
    shard(tmp_path / "default/val/0000.parquet", [5, 5])
    with pytest.raises(ValueError, match="has both val and validation, which are one part"):
        open_source(f"parquet:{tmp_path}")
    shard(tmp_path / "other/train/0000.parquet", [1])
    with pytest.raises(ValueError, match="holds the configurations default, other; name one of these folders"):
        open_source(f"parquet:{tmp_path}")


def test_a_split_column_with_validation_in_any_case(tmp_path):
    shard(tmp_path / "x.parquet", [1, 1, 2, 2], Split=["Train", "Train", "Validation", "validation"])
    split = open_source(f"parquet:{tmp_path / 'x.parquet'}")
    assert (split.train.labels.tolist(), split.test.labels.tolist()) == ([1, 1], [2, 2])


@pytest.mark.parametrize("pair", [False, True])
def test_images_as_paths_of_files(tmp_path, pair):
    for part, shade in (("train", 1), ("test", 2)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.png").write_bytes(png(shade))
        cells = [{"bytes": None, "path": "a.png"}] * 2 if pair else ["a.png"] * 2
        pq.write_table(pa.table({"image": cells, "label": [shade] * 2}), tmp_path / part / "0000.parquet")
    split = open_source(f"parquet:{tmp_path}")
    assert (split.train.name(0), split.test.inputs.read(1).getpixel((0, 0))) == ("train/a.png", (2, 2, 2))
    (tmp_path / "test" / "a.png").unlink()
    with pytest.raises(ValueError, match="2 of 4 listed images are missing, the first is test/a.png"):
        read(tmp_path)
    assert read(tmp_path, allow_partial=True).items.labels.tolist() == [1, 1]
