import pytest

from polyanchor.data.csv_list import read
from polyanchor.data.sources import open_source


def table(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_csv_with_a_split_and_names(tmp_path, picture):
    far = picture(tmp_path / "far" / "5.png")
    for n in range(1, 5):
        picture(tmp_path / "set" / "im" / f"{n}.png")
    rows = f"im/1.png,dog,train\nim/2.png,cat,query\nim/3.png,cat,gallery\n{far},dog,gallery\n"
    file = table(tmp_path / "set" / "list.csv", "\ufeffpath,label,split\n" + rows)  # as Excel writes it
    split = open_source(f"csv:{file}")
    assert split.train.class_names == {0: "cat", 1: "dog"}
    assert split.gallery is not None
    assert (split.train.labels.tolist(), split.test.labels.tolist()) == ([1], [0])
    assert split.gallery.labels.tolist() == [0, 1]
    assert split.gallery.inputs.read(1).size == (12, 10)


def test_csv_without_a_split_and_with_numbers(tmp_path, picture):
    picture(tmp_path / "1.png")
    file = table(tmp_path / "list.csv", "label,path\n" + "".join(f"{n},1.png\n" for n in (30, 4, 4, 30)))
    split = open_source(f"csv:{file}")
    assert (split.train.labels.tolist(), split.test.labels.tolist()) == ([4, 4], [30, 30])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "path and label missing in an empty file"),
        ("file,label\nx,1\n", "path missing in file,label"),
        ("path,label\n", "a heading and no rows"),
        ("path,label\na.png\n", "row 1 after the heading: label empty"),
        ("path,label,split\na.png,1,dev\n", "got 'dev'"),
        ("path,label\na.png,1\n", "1 of 1 listed images are missing, the first is a.png"),
        (f"path,label\n{'a' * 131_073},1\n", "damaged or of another format: field larger"),
    ],
)
def test_csv_errors(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"csv:.*list.csv.*{message}"):
        read(table(tmp_path / "list.csv", text), allow_partial=False)


def test_csv_in_another_encoding_names_the_file(tmp_path):
    (tmp_path / "list.csv").write_bytes("path,label\na.png,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.csv: expected UTF-8 text, got the byte 0xe9 at 17"):
        read(tmp_path / "list.csv", allow_partial=False)


def test_csv_with_unlabelled_rows_is_refused(tmp_path, picture):
    picture(tmp_path / "1.png")
    file = table(tmp_path / "list.csv", "path,label\n" + "".join(f"1.png,{n}\n" for n in (10, 9, -1)))
    with pytest.raises(ValueError, match=r"list\.csv: labels must be class ids of 0 or more, got -1"):
        read(file, allow_partial=False)


def test_csv_with_long_numbers_for_names(tmp_path, picture):
    picture(tmp_path / "1.png")
    code = "9" * 21
    file = table(tmp_path / "list.csv", f"path,label\n1.png,{code}\n1.png,8\n")
    assert read(file, allow_partial=False).items.class_names == {0: "8", 1: code}
