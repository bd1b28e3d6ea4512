import pytest

from polyanchor.datasets.formats.csv import read
from polyanchor.datasets.sources import open_source


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


def test_csv_errors(subtests, tmp_path):
    for text, message in (
        ("", "path and label missing in an empty file"),
        ("photo,label\nx,1\n", "path missing in photo,label"),
        ("path,label\na.png,cat, large\n", "row 1 after the heading has 3 fields, expected 2.*quotes"),
        *(
            (f"path,label\na.png,cat\na.png,{word}\n", f"row 2 .*label {word}, .*missing")
            for word in ("nan", "None", "NA")
        ),
        ("path,label\n", "a heading and no rows"),
        ("path,label\na.png\n", "row 1 after the heading: label empty"),
        ("path,label,split\na.png,1,dev\n", "got 'dev'"),
        ("path,label\na.png,1\n", "1 of 1 listed images are missing, the first is a.png"),
        (f"path,label\n{'a' * 131_073},1\n", "damaged or of another format: field larger"),
    ):
        with subtests.test(message), pytest.raises(ValueError, match=f"csv:.*list.csv.*{message}"):
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


def test_headings_separators_space_and_case_as_people_write_them(tmp_path, picture):
    for name in ("cat", "dog"):
        for n in range(2):
            picture(tmp_path / "im" / f"{name}{n}.png")
    rows = [(f"im/{name}{n}.png", name) for name in ("cat", "dog") for n in range(2)]
    forms = {
        "semicolon": "Path;Label\n" + "".join(f"{p};{c}\n" for p, c in rows),
        "tab": "file_name\tclass\n" + "".join(f"{p}\t{c}\n" for p, c in rows),
        "space": "path, label\n" + "".join(f"{p},{' ' * n}{c} \n" for n, (p, c) in enumerate(rows)) + "\n",
        "backslash": "image,target\n" + "".join(f"{p},{c}\n".replace("/", "\\") for p, c in rows),
        "quoted": "path,label\n" + "".join(f'"{p}", "{c}"\n' for p, c in rows),
    }
    for text in forms.values():
        listing = read(table(tmp_path / "list.csv", text), allow_partial=False)
        assert listing.items.class_names == {0: "cat", 1: "dog"}
        assert listing.items.labels.tolist() == [0, 0, 1, 1]
        assert [listing.items.name(row) for row in range(4)] == [p for p, _ in rows]


def test_names_in_quotes_may_be_words_for_missing_ones_or_hold_the_separator(tmp_path, picture):
    picture(tmp_path / "1.png")
    file = table(tmp_path / "list.csv", 'path,label\n1.png,"nan"\n1.png,"cat, large"\n1.png,Cat\n1.png,cat\n')
    listing = read(file, allow_partial=False)
    assert list(listing.items.class_names.values()) == ["Cat", "cat", "cat, large", "nan"]
    assert listing.notes == ("classes 'Cat' and 'cat' differ in case or space alone: are they one class?",)


def test_validation_rows_choose_and_nothing_else(tmp_path, picture):
    for n in range(12):
        picture(tmp_path / f"{n}.png")
    parts = ["train", "train", "Val", "val", "TEST", "test"] * 2
    rows = "".join(f"{n}.png,{'ab'[n // 6]},{part}\n" for n, part in enumerate(parts))
    split = open_source(f"csv:{table(tmp_path / 'list.csv', 'path,label,split' + chr(10) + rows)}")
    found = [
        [int(items.name(row)[:-4]) for row in range(len(items))]
        for items in (split.train, split.validation, split.test)
    ]
    assert found == [[n for n, part in enumerate(parts) if part.lower() == name] for name in ("train", "val", "test")]
    one = "".join(f"{n}.png,{'ab'[n // 6]},{part}\n" for n, part in enumerate(["train", "train", "val", "test"] * 3))
    split = open_source(f"csv:{table(tmp_path / 'list.csv', 'path,label,split' + chr(10) + one)}")
    assert split.validation is not None or "left out" in " ".join(split.notes)
