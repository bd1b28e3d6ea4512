"""The site as `make docs` builds it: strict, with its formulas, and without a word to other machines."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tests.docs.blocks import ROOT

pytestmark = pytest.mark.slow

FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


class Fetches(HTMLParser):
    """What a browser asks for by itself when it opens a page."""

    def __init__(self, text):
        super().__init__()
        self.addresses = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in FETCHED and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get(FETCHED[tag]) or "")


def test_pages_ask_no_other_machine_for_anything(site):
    pages = [*site.rglob("*.html")]
    assert len(pages) > 25
    for page in pages:
        elsewhere = [name for name in Fetches(page.read_text()).addresses if re.match(r"(\w+:)?//", name)]
        assert elsewhere == [], page
    styles = "".join(file.read_text() for file in site.rglob("*.css"))
    assert not re.search(r"url\(\W?(https?:)?//", styles)


def test_the_readme_is_the_first_page(site):
    home = (site / "index.html").read_text()
    assert 'href="tutorial.html"' in home
    assert 'href="losses.html"' in home
    assert (site / "CITATION.cff").is_file()


def test_formulas_are_there_and_roles_are_links(site):
    page = (site / "reference" / "functional.html").read_text()
    assert page.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') >= 8
    text = "".join(file.read_text() for file in site.rglob("*.html"))
    assert not re.search(r"\\\[|\.\. math::|:(func|class|meth|mod|math):`|arithmatex", text)
    assert 'href="#polyanchor.functional.class_similarity"><code>class_similarity</code></a>' in page


def test_every_command_has_its_help(site):
    page = (site / "reference" / "commands.html").read_text()
    for command in ("train", "index build", "analyze gradients", "export"):
        assert f"polyanchor {command}" in page
        assert f"Usage: polyanchor {command}" in page


def test_every_key_of_a_configuration_has_its_row(site):
    page = (site / "reference" / "configuration.html").read_text()
    for row in ("optim.lr", "loss.proxies_per_class", "loss.scale", "data.source"):
        assert f"<td><code>{row}</code></td>" in page
    assert page.count("<td><code>loss.proxies_per_class</code></td>") == 3  # a row for each loss that has it
