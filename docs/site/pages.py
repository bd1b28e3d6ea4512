"""What the site needs beyond the pages in docs/: a hook of mkdocs.

README, CHANGELOG and CONTRIBUTING stand at the root for those who read the repository, the full tables beside their
result files; here they become pages, their links with them. The pages of the commands and of the configuration are made
from the program. Formulas become MathML, which browsers show by themselves: no script, no font, no other machine.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "CONTRIBUTING.md": "CONTRIBUTING.md"}
AS_THEY_ARE = "LICENSE", "CITATION.cff"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=in_docs((ROOT / name).read_text(encoding="utf-8"))))
    for path in [ROOT / "benchmarks" / "README.md", *sorted((ROOT / "results").glob("*/README.md"))]:
        name, content = path.relative_to(ROOT).as_posix(), in_docs(path.read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    for name in AS_THEY_ARE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    files.append(File.generated(config, "reference/configuration.md", content=configuration()))
    return files


def in_docs(text: str) -> str:
    """A page outside docs/ with links as from inside: ``docs/losses.md`` is ``losses.md``, README the home page."""
    return re.sub(r"\]\(README\.md", "](index.md", re.sub(r"\]\(((?:\.\./)*)docs/", r"](\1", text))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links of docs/ to pages outside it, which stand one level higher in the repository than in the site."""
    if page.file.generated_by:
        return markdown
    return re.sub(r"\]\(\.\./((?:\.\./)*(?:results/|benchmarks/|CONTRIBUTING\.md))", r"](\1", markdown)


def commands() -> str:
    """Every command with its ``--help``, as the command line prints it."""
    import typer

    from polyanchor.cli.app import app

    sections = ["# Command line\n\nExit codes: 0 done, 1 the job failed, 2 wrong usage or bad input."]

    def visit(command: Any, name: str, parent: Any) -> None:
        context = command.context_class(command, info_name=name, parent=parent, terminal_width=88)
        sections.append(f"## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```")
        for child in command.list_commands(context) if hasattr(command, "list_commands") else ():
            visit(command.get_command(context, child), child, context)

    visit(typer.main.get_command(app), "polyanchor", None)
    return "\n\n".join(sections) + "\n"


def configuration() -> str:
    """Every key of a configuration with its default, from the schema."""
    import tomli_w

    from polyanchor.config.schema import LOSSES, Config

    sections = [
        "# Configuration\n\nThe keys of `polyanchor train` and `compare`. `loss.name` is `multi-proxy-anchor` unless "
        "it is set; the other losses are those of pytorch-metric-learning (extra `compare`), with proxies that start "
        "at length 1."
    ]

    def table(section: str, title: str, model: Any) -> None:
        rows = [f"## {title}\n\n{model.__doc__}\n\n| key | default | |\n| --- | --- | --- |"]
        for name, field in model.model_fields.items():
            if field.is_required():  # the name of a baseline, which is the heading
                continue
            default = " ".join(tomli_w.dumps({"x": field.default})[4:].split())
            meaning = (field.description or "").replace("|", "\\|")
            rows.append(f"| `{section}.{name}` | `{default}` | {meaning} |")
        sections.append("\n".join(rows))

    for name, field in Config.model_fields.items():
        if name == "loss":
            for loss, model in LOSSES.items():
                table("loss", f"loss: {loss}", model)
        else:
            table(name, name, field.annotation)
    return "\n\n".join(sections) + "\n"


def on_page_content(content: str, **_: object) -> str:
    """Formulas, which arithmatex has marked, as MathML."""
    return re.sub(
        r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>',
        lambda found: as_mathml(html.unescape(found[2]), display="block" if found[1] == "div" else "inline"),
        content,
        flags=re.DOTALL,
    )


def as_mathml(latex: str, *, display: str) -> str:
    """One formula; several lines, or columns, are aligned at ``&`` as Sphinx does it."""
    latex = re.sub(r"\\operatorname\{(\w+)\}", r"\\text{\1}", latex.strip())
    if re.search(r"\\\\|(?<!\\)&", latex):
        latex = rf"\begin{{align*}}{latex}\end{{align*}}"
    return convert(latex, display=display)
