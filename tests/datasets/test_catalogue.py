from polyanchor.datasets.sources import KNOWN, open_source
from polyanchor.datasets.splits import OFFICIAL


def test_the_numbers_are_those_of_the_splits():
    for info in KNOWN:
        if info.name in ("cub200", "cars196", "sop", "inshop"):
            train, *rest = OFFICIAL[info.name].values()
            assert info.classes == f"{train.n_classes:,} / {rest[0].n_classes:,}"
            assert info.images.startswith(f"{train.n_images:,} / {rest[0].n_images:,}")
            assert info.citation
            assert info.where
    split = open_source("digits")
    assert next(i for i in KNOWN if i.name == "digits").images == f"{len(split.train)} / {len(split.test)}"


def test_names_are_unique():
    assert len({info.name for info in KNOWN}) == len(KNOWN) == 10
