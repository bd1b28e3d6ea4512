"""The code blocks of a page, fenced or indented, as a CommonMark reader sees them."""

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """One block, with the comments that stand directly before it.

    Attributes:
        where: page and line, for messages.
        language: the fence's first word; empty for an indented block.
        code: what stands in it.
        comments: texts of the comments directly before it.
    """

    where: str
    language: str
    code: str
    comments: tuple[str, ...]

    @property
    def kind(self) -> str:
        """What is to be done: ``not run``, ``doctest``, ``text``, ``python``, ``sh``, ``toml``, or ``unknown``."""
        if any(re.match(r"not run: \S", comment) for comment in self.comments):
            return "not run"
        if ">>> " in self.code:
            return "doctest"
        if self.language in ("", "sh", "bash", "console") and re.match(r"(\$ )?polyanchor ", self.code):
            return "sh"
        known = {name: name for name in ("text", "python", "sh", "toml")} | {"bash": "sh", "console": "sh"}
        return known.get(self.language, "unknown")

    @property
    def to_run(self) -> str:
        """The code with what ``<!-- run with `new` for `old`: reason -->`` puts in; an ``old`` has to be there."""
        code = self.code
        for comment in self.comments:
            if comment.startswith("run with "):
                swaps = re.findall(r"`([^`]*)` for `([^`]+)`", comment)
                assert swaps and ": " in comment, f"{self.where}: no `new` for `old`: reason in {comment!r}"
                for new, old in swaps:
                    assert old in code, f"{self.where}: {old!r} is not in the block"
                    code = code.replace(old, new)
        return code


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in order."""
    found, comments = [], []
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            comments += re.findall(r"<!--\s*(.*?)\s*-->", token.content, re.DOTALL)
        elif token.type in ("fence", "code_block"):
            words = token.info.split()
            where = f"{page.relative_to(ROOT)}:{token.map[0] + 1}"
            found.append(Block(where, words[0] if words else "", token.content, tuple(comments)))
            comments = []
        else:
            comments = []
    return found
