"""Parts of a run's data."""

import pytest
import torch

from polyanchor.runs.embed_parts import open_rows
from polyanchor.runs.folder import RunFolder
from polyanchor.training.train import train
from tests.tiny_runs import config, with_gallery


def test_a_part_alone(run):
    rows, k, skipped = open_rows(run, split="validation")
    assert [(one.split, len(one.items), one.ndcg) for one in rows] == [("validation", 16, None)]
    assert (k, skipped) == (8, ())


def test_unknown_and_absent_parts(run):
    with pytest.raises(ValueError, match=r"did you mean 'gallery'\?"):
        open_rows(run, split="galery")
    with pytest.raises(ValueError, match="has no gallery split in this run"):
        open_rows(run, split="gallery")


def test_bad_images_are_left_out_and_rows_stay_together(run, photos):
    (photos / "class5" / "3.png").write_bytes(b"no image")
    (one,), _, skipped = open_rows(run, settings=("data.on_bad_image=skip",))
    assert skipped == ("class5/3.png",)
    assert len(one.items) == len(one.embeddings.labels) == len(one.ndcg) == 15
    assert [one.items.name(row) for row in range(15)] == list(one.embeddings.names)


@pytest.mark.slow
def test_queries_are_searched_in_the_gallery(photos, tmp_path):
    """The numbers are those that the run measured, whether the gallery is asked for or not."""
    with_gallery(photos)
    train(config(photos, "run.epochs=1", "data.train_share=0.5"), tmp_path / "run")
    true = RunFolder(tmp_path / "run").read_per_query()["ndcg@8"]
    for part in "test", "all":
        rows, _, _ = open_rows(tmp_path / "run", split=part)
        found = {one.split: one.ndcg for one in rows}
        assert torch.allclose(found["test"], true)
        assert ("gallery" in found) == (part == "all")
