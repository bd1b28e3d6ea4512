"""Every code block of README and docs is run, or says before it why not.

The blocks of a page are run in their order, in a folder of the page's own that holds what the pages speak of
(`prepared`). ``python`` goes into one namespace a page, ``sh`` line by line to the command line, ``toml`` is read as a
configuration; what the tests do not do as printed stands in `CHEAP` below or in a comment on the page.
"""

import itertools
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from polyanchor.cli.app import run
from polyanchor.config.loading import load_config
from polyanchor.datasets.benchmarks.digits import write_digits
from tests.docs.blocks import PAGES, ROOT, Block, blocks_of

TINY = ["--backbone=test_resnet", "--weights=", "--embedding-dim=16", "--image-size=16", "--resize=16"]
QUICK = ["--epochs=1", "--threads=1"]

# What is appended to a command: one epoch of a tiny network with random weights, as weights cannot be fetched.
CHEAP = {
    "train": [*TINY, *QUICK],
    "compare": [*QUICK, "--seeds=2", "--trials=0", "--method=class", "--method=data"],
    "embed": TINY,
    "demo": ["--epochs=1"],
}


def appended(words: list[str]) -> list[str]:
    """The words that make a command cheap enough; flags of images do not go to vectors."""
    command = words[0]
    if "--resume" in words or (command == "embed" and "--features" not in words):
        return []
    vectors = "none" in words  # the backbone
    chosen = "--method" in words
    return [
        word
        for word in CHEAP.get(command, [])
        if not (vectors and word in TINY) and not (chosen and word.startswith("--method"))
    ]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with `photos` (10 classes, 12 digits of each), the run and the index of them, and single files."""
    folder = tmp_path_factory.mktemp("prepared")
    write_digits(folder / "all")
    for source in sorted((folder / "all").iterdir()):
        (folder / "photos" / source.name).mkdir(parents=True)
        for image in sorted(source.iterdir())[:12]:
            shutil.copy(image, folder / "photos" / source.name)
    shutil.rmtree(folder / "all")
    for name in ("a.jpg", "b.jpg", "query.jpg"):
        Image.open(folder / "photos" / "7" / "0007.png").convert("RGB").save(folder / name)
    (folder / "CONFIG.toml").write_text('[data]\nsource = "folder:photos"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["train", "photos", *TINY, *QUICK, "--out", "runs/photos"]) == 0
        assert run(["index", "build", "runs/photos", "photos/", "--out", "photos.index"]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_runs_or_says_why_not(page, prepared, tmp_path, monkeypatch):
    blocks = blocks_of(page)
    folder = tmp_path / "page"
    shutil.copytree(prepared, folder)
    for out in made_by(blocks):
        shutil.rmtree(folder / out, ignore_errors=True)
    monkeypatch.chdir(folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    names = {"__name__": "page"}
    for block in blocks:
        DO[block.kind](block, names)


def made_by(blocks):
    """Folders that the page's own commands make, with --out or cp: they are not prepared for it."""
    commands = [words for block in blocks if block.kind == "sh" for words in lines_of(block)]
    outs = [after for words in commands for word, after in itertools.pairwise(words) if word == "--out"]
    return outs + [words[-1] for words in commands if words[0] == "cp"]


def lines_of(block):
    """The commands of a block as words, without comments; lines that end in a backslash go on."""
    lines = block.to_run.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):  # a session: the other lines are answers
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def do_commands(block: Block, _names):
    if "<<" in block.to_run:  # a here-document is one command
        in_bash(block, block.to_run)
        return
    for words in lines_of(block):
        if words[0] == "polyanchor":
            arguments = words[1:] + appended(words[1:])
            assert run(arguments) == 0, f"{block.where}: polyanchor {shlex.join(arguments)}"
        else:
            in_bash(block, shlex.join(words))


def in_bash(block, command):
    command = f'PATH="{Path(sys.executable).parent}:$PATH"\n{command}'
    done = subprocess.run(["bash", "-e", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, f"{block.where}:\n{done.stdout}{done.stderr}"


def do_python(block: Block, names):
    file = block.where
    try:
        exec(compile(block.to_run, file, "exec"), names)
    except Exception as error:  # of a page's code: any
        raise AssertionError(f"{file} does not run: {type(error).__name__}: {error}") from error


def do_toml(block: Block, _names):
    """A configuration; with ``# name.toml`` as its first line it is that file for the blocks after it."""
    first = block.code.splitlines()[0]
    name = first.removeprefix("# ") if first.startswith("# ") and first.endswith(".toml") else "block.toml"
    Path(name).write_text(block.to_run)
    load_config(Path(name))


def do_text(block: Block, _names):
    """Nothing to run; but what is a command must not hide as text."""
    starts = ("polyanchor ", "$ ", "pip install", "python ", "make ", ">>> ", "import ")
    commands = [line for line in block.code.splitlines() if line.startswith(starts)]
    assert commands == [], f"{block.where}: a command, as text"


def do_doctest(block: Block, _names):
    """pytest itself collects it (`--doctest-glob` in pyproject), below docs/ only."""
    assert block.where.startswith("docs/"), f"{block.where}: doctests are collected in docs/ alone"


def refuse(block: Block, _names):
    raise AssertionError(
        f"{block.where}: nothing says how to run this block. Tag its fence python, sh, toml or, for output and "
        "drawings, text; or write <!-- not run: the reason --> directly before it"
    )


DO = {
    "python": do_python,
    "sh": do_commands,
    "toml": do_toml,
    "text": do_text,
    "doctest": do_doctest,
    "unknown": refuse,
    "not run": lambda block, names: None,
}


def page_of(tmp_path, monkeypatch, text):
    monkeypatch.setattr("tests.docs.blocks.ROOT", tmp_path)
    (tmp_path / "page.md").write_text(text)
    return blocks_of(tmp_path / "page.md")


def test_blocks_of_every_form_are_found(tmp_path, monkeypatch):
    text = (
        "a\n\n    indented\n\n- item\n\n  ```sh\n  polyanchor data list\n  ```\n\n"
        "<!-- not run: a server -->\n```sh\nmake\n```\n\n<!-- not run: -->\n```\nmake\n```\n"
        "~~~python\n>>> 1\n1\n~~~\n<!-- run with `1` for `2`: cheaper -->\n```python\nx = 2\n```\n"
    )
    found = page_of(tmp_path, monkeypatch, text)
    kinds = ["unknown", "sh", "not run", "unknown", "doctest", "python"]
    assert [block.kind for block in found] == kinds
    assert [block.where for block in found][:2] == ["page.md:3", "page.md:7"]
    assert found[-1].to_run == "x = 1\n"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("```\nnpm install\n```", "nothing says how to run"),
        ("```text\npolyanchor train\n```", "as text"),
        ("```python\n1 / 0\n```", "page.md:1 does not run: ZeroDivisionError"),
        ("```sh\npolyanchor train --oout x\n```", "polyanchor train --oout"),
        ("```sh\nfalse\n```", "page.md:1"),
        ("<!-- run with `a` for `b`: why -->\n```python\nx = 1\n```", "'b' is not in the block"),
    ],
)
def test_a_block_that_does_not_hold_fails(tmp_path, monkeypatch, text, wrong):
    (block,) = page_of(tmp_path, monkeypatch, text)
    with pytest.raises(AssertionError, match=wrong):
        DO[block.kind](block, {})


def test_a_wrong_configuration_fails(tmp_path, monkeypatch):
    (block,) = page_of(tmp_path, monkeypatch, "```toml\n[data]\nsorce = 'digits'\n```")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="source"):
        DO[block.kind](block, {})
