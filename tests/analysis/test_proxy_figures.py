"""Figures: the files, what they draw, the same bytes again."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from polyanchor.analysis import proxy_report as proxy_figures
from polyanchor.analysis.proxies import study_proxies
from polyanchor.analysis.proxy_report import draw_study
from polyanchor.types import Embeddings


def study(sublabels=True):
    generator = torch.Generator().manual_seed(0)
    vectors, subs = torch.randn(80, 4, generator=generator), torch.randint(3, (80,), generator=generator)
    found = Embeddings(vectors, torch.arange(80) % 4, sublabels=subs if sublabels else None)
    return study_proxies(found, torch.randn(4, 3, 4, generator=generator), torch.arange(4))


def test_files_are_there_and_can_be_read(tmp_path):
    files = draw_study(study(), tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["centres.svg", "centres.png", "agreement.svg", "agreement.png"]
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as image:
                assert min(image.size) > 300
        else:
            assert file.read_text().startswith("<?xml")


def test_without_sub_classes_there_is_no_agreement_to_draw(tmp_path):
    assert [file.stem for file in draw_study(study(sublabels=False), tmp_path)] == ["centres", "centres"]
    assert len(list(tmp_path.iterdir())) == 2


def test_every_class_is_counted_once_and_every_bar_is_its_number():
    drawn = study()
    numbers = zip(drawn.classes, (1, 1.1, 1, 2.4), (2.3, 2.7, 3, 3), strict=True)
    known = replace(drawn, classes=[replace(one, effective_distinct=n, effective_soft=m) for one, n, m in numbers])
    hard, soft = (patch.get_path().vertices.tolist() for patch in proxy_figures._centres(known).axes[0].patches)
    # bins half a centre wide, with 1 and K = 3 in the middle of the outermost
    assert [0.75, 3] in hard and [1.25, 3] in hard and max(height for _, height in hard) == 3
    assert [2.75, 2] in soft and [3.25, 2] in soft and [2.25, 2] in soft
    upper, lower = proxy_figures._agreement(drawn).axes
    heights = [bar.get_height() for bar in upper.patches]
    amis = sorted((one.agreement.ami for one in drawn.classes), reverse=True)
    assert heights[:4] == amis  # of the proxies, best first; then those of k-means
    assert len(heights) == 8 and len(lower.patches) == 12
    assert f"proxies, mean {drawn.means['ami']:.3f}" in [text.get_text() for text in upper.get_legend().get_texts()]


def test_classes_without_sub_classes_have_no_bar():
    drawn = study()
    some = replace(drawn, classes=(replace(drawn.classes[0], agreement=None), *drawn.classes[1:]))
    assert len(proxy_figures._agreement(some).axes[0].patches) == 6


@pytest.mark.slow
def test_the_same_study_gives_the_same_bytes(tmp_path):
    first, second = (draw_study(study(), tmp_path / name) for name in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
