"""The page asks nothing of a network, and texts from outside stay texts."""

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from polyanchor.report.write import percent, plotly, render
from tests.report.conftest import EVIL


class Seen(HTMLParser):
    """Every tag with its attributes, and the text of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.inside = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside in ("script", "style"):
            self.texts.append((self.tags[-1], data))

    def handle_endtag(self, tag):
        self.inside = None


@pytest.fixture(scope="module")
def page(written):
    return written.path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def seen(page):
    return Seen(page)


def test_no_address_is_loaded(page, seen):
    """Whatever a browser would load by itself lies in the page; the one address elsewhere is a link to be followed."""
    for tag, attributes in seen.tags:
        for name, value in attributes.items():
            if name in ("src", "srcset", "data", "poster", "action", "background", "xlink:href"):
                assert value.startswith("data:image/webp;base64,"), (tag, name)
            if name == "href" and tag != "a":
                assert value == "data:,", (tag, value)
            assert "url(" not in (value or "") and "http" not in (value if name == "style" else "")
        assert tag not in ("iframe", "object", "embed", "base", "form")
    links = [value["href"] for tag, value in seen.tags if tag == "a" and not value["href"].startswith("#")]
    assert links == ["https://arxiv.org/abs/2110.03997"]
    styles = "".join(text for (tag, _), text in seen.texts if tag == "style")
    assert "@import" not in styles and "url(" not in styles
    own = [text for (tag, attributes), text in seen.texts if tag == "script" and "type" not in attributes]
    assert len(own) == 1 and not re.search(r"https?:|fetch\(|XMLHttpRequest|WebSocket|import\(", own[0])


def test_the_policy_knows_the_scripts_and_nothing_else(page, seen):
    policy = next(a["content"] for tag, a in seen.tags if tag == "meta" and a.get("http-equiv"))
    known = set(re.findall(r"'sha256-([^']+)'", policy))
    own = [text for (tag, attributes), text in seen.texts if tag == "script" and "type" not in attributes]
    packed = next(text for (_, attributes), text in seen.texts if attributes.get("id") == "plotly")
    library = gzip.decompress(base64.b64decode(packed)).decode()
    assert known == {base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (*own, library)}
    assert policy.startswith("default-src 'none';") and "connect-src" not in policy and "http" not in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert library == plotly()[0] and "plotly.js v" in library[:200]


def test_names_of_classes_and_files_are_texts(page, seen):
    assert "z <img" not in page.replace("&lt;", "")
    assert not [a for tag, a in seen.tags if "onerror" in a or a.get("src") == "x"]
    data = next(text for (_, attributes), text in seen.texts if attributes.get("id") == "figures")
    assert "<" not in data  # no name can end the script it stands in
    assert any(EVIL in one["name"] for one in json.loads(data)["classes"])


def test_each_part_has_a_name_and_a_link(seen):
    anchors = [a["href"][1:] for tag, a in seen.tags if tag == "a" and a["href"].startswith("#")]
    known = {a["id"] for _, a in seen.tags if "id" in a}
    assert set(anchors) <= known and len([a for a in seen.tags if a[0] == "section"]) == 9
    ids = [a["id"] for _, a in seen.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in seen.tags:
        for name in ("aria-labelledby", "aria-describedby", "for", "list"):
            assert attributes.get(name, "main") in known
    assert not [a for tag, a in seen.tags if tag == "img" and "alt" not in a]


def test_a_missing_value_is_an_error_and_not_a_gap():
    with pytest.raises(Exception, match="is undefined"):
        render({"title": "x"})


def test_small_shares_are_not_nothing():
    assert [percent(share) for share in (0, 0.001, 0.0096, 0.5, 1)] == ["0 %", "0.1 %", "1 %", "50 %", "100 %"]
