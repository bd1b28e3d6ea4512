"""Local centres, beside a search by hand."""

from dataclasses import replace

from polyanchor.functional import unit_rows
from polyanchor.losses.base import EmbeddingLoss
from polyanchor.report.map import study_centres


def test_items_stand_under_their_nearest_proxy(opened):
    found = study_centres(opened, chosen=[], classes=4)
    assert found.classes == 2 and len(found.shown) == 2
    vectors, labels = unit_rows(opened.training.embeddings.vectors), opened.training.embeddings.labels
    for one in found.shown:
        place = opened.trained.classes.tolist().index(one.class_id)
        cosines = vectors @ unit_rows(opened.proxies[place]).T
        own = [row for row in range(len(labels)) if labels[row] == one.class_id]
        for centre, rows in found.rows[one.class_id].items():
            here = [row for row in own if int(cosines[row].argmax()) == centre]
            assert rows == sorted(here, key=lambda row: -float(cosines[row, centre]))[:8]
        assert sum(one.counts) == len(own)


def test_chosen_ones_and_none(opened):
    last = int(opened.trained.classes[-1])
    assert [one.class_id for one in study_centres(opened, chosen=[last, 999], classes=1).shown] == [last]
    assert len(study_centres(opened, chosen=[999], classes=1).shown) == 1
    assert study_centres(replace(opened, training=None), chosen=[], classes=4) is None
    assert (
        study_centres(replace(opened, trained=replace(opened.trained, loss=EmbeddingLoss())), chosen=[], classes=4)
        is None
    )
