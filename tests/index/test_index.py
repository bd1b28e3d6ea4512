"""The index as its users see it."""

import pytest
import torch
from PIL import Image

from polyanchor import Index
from polyanchor._optional import load
from polyanchor.deploy.description import Description
from polyanchor.deploy.embedder import Embedder
from polyanchor.models.embedding import EmbeddingModel
from tests.index.vectors import unit


def embedder(seed=0):
    torch.manual_seed(seed)
    return Embedder(EmbeddingModel(None, features=6, embedding_dim=4), Description(backbone="none", embedding_dim=4))


class Colours:
    """Stands in for an embedder of images: the vector is the mean colour."""

    embedding_dim, fingerprint, takes_images = 3, "colours", True

    def embed(self, images):
        opened = [image if isinstance(image, Image.Image) else Image.open(image) for image in images]
        colours = [torch.tensor(image.convert("RGB").resize((1, 1)).getpixel((0, 0))).float() for image in opened]
        return torch.nn.functional.normalize(torch.stack(colours), dim=1)


def test_vectors_of_any_length_and_precision(tmp_path):
    index = Index.create(tmp_path / "index", dim=16)
    rows = unit(50).double() * torch.rand(50, 1) * 100
    ids = index.add(rows, labels=[str(row) for row in range(50)]).ids
    assert ids.tolist() == list(range(50))
    queries = torch.randn(8, 16, dtype=torch.float16)
    cosines = torch.nn.functional.cosine_similarity(queries.double()[:, None], rows[None], dim=2)
    hits = Index.open(tmp_path / "index").search(queries, 7)
    assert [[hit.id for hit in row] for row in hits] == cosines.topk(7).indices.tolist()
    scores = torch.tensor([[hit.score for hit in row] for row in hits], dtype=torch.float64)
    torch.testing.assert_close(scores, cosines.topk(7).values, atol=1e-6, rtol=0)
    assert {hit.label for hit in hits[0]} == {str(hit.id) for hit in hits[0]}


def test_images_are_embedded_and_known_by_their_paths(photos, tmp_path, monkeypatch):
    index = Index.create(tmp_path / "index", model=Colours())
    monkeypatch.chdir(photos)
    files = [f"class{number}/{image}.png" for number in range(6) for image in range(8)]
    added = index.add(files, labels=[file.partition("/")[0] for file in files])
    assert (added.new, len(index)) == (48, 48)
    again = Index.open(tmp_path / "index", model=Colours())
    for query in ["class2/3.png", photos / "class2" / "3.png", Image.open("class2/3.png")]:
        [hits] = again.search(query, 8)
        assert hits[0].path == str(photos / "class2" / "3.png") and hits[0].score == pytest.approx(1)
        assert {hit.label for hit in hits} == {"class2"}
    assert index.add([photos / "class2" / "3.png"]).new == 0
    assert index.find(["class2/3.png", "class2/../class0/0.png", "nowhere"]) == [19, 0, None]
    assert index.remove(ids=[0], paths=["class2/3.png"]) == 2
    assert again.search("class2/3.png", 1)[0][0].id == 19  # opened before
    assert Index.open(tmp_path / "index", model=Colours()).search("class2/3.png", 1)[0][0].id != 19
    with pytest.raises(ValueError, match="has no item 'nowhere'; nothing was removed"):
        index.remove(paths=["class2/4.png", "nowhere"])
    assert len(index) == 46


def test_pictures_in_memory_have_no_path(photos, tmp_path):
    index = Index.create(tmp_path / "index", model=Colours())
    index.add([Image.new("RGB", (4, 4), "red"), photos / "class0" / "0.png"])
    [hits] = index.search(Image.new("RGB", (9, 9), "red"))
    assert [hit.path for hit in hits] == [None, str(photos / "class0" / "0.png")]  # all there are, not ten


def test_the_model_is_found_again_and_another_is_refused(tmp_path):
    embedder().save_pretrained(tmp_path / "first")
    embedder(seed=1).save_pretrained(tmp_path / "second")
    index = Index.create(tmp_path / "index", model=tmp_path / "first")
    assert Index.open(tmp_path / "index").model.fingerprint == embedder().fingerprint
    fingerprint = embedder().fingerprint[:12]
    with pytest.raises(ValueError, match=f"was made with the model {fingerprint} of .*first, got the model"):
        Index.open(tmp_path / "index", model=tmp_path / "second")
    (tmp_path / "first").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="give the model it was made with"):
        _ = Index.open(tmp_path / "index").model
    assert Index.open(tmp_path / "index", model=tmp_path / "moved").model.fingerprint == index.about.fingerprint
    (tmp_path / "second").rename(tmp_path / "first")
    with pytest.raises(ValueError, match="vectors of two models cannot be compared"):
        _ = Index.open(tmp_path / "index").model


def test_an_embedder_from_no_folder_has_to_be_given_again(tmp_path):
    Index.create(tmp_path / "index", model=embedder())
    with pytest.raises(ValueError, match="an embedder that lay in no folder; give the model"):
        _ = Index.open(tmp_path / "index").model
    assert Index.open(tmp_path / "index", model=embedder()).about.dim == 4
    Index.create(tmp_path / "vectors", dim=4)
    with pytest.raises(ValueError, match="was made with vectors alone, got the model"):
        Index.open(tmp_path / "vectors", model=embedder())
    with pytest.raises(ValueError, match="was made for vectors alone, without a model"):
        Index.open(tmp_path / "vectors").add(["a.jpg"])


@pytest.mark.filterwarnings("ignore:Local mode performs exact")  # no server here
def test_on_a_server(tmp_path):
    client = load("qdrant_client", "qdrant").QdrantClient(":memory:")
    for store, place in ((client, "photos"), ("", tmp_path / "index")):
        index = Index.create(place, dim=16, store=store)
        index.add(5 * unit(20), paths=[f"p{row}" for row in range(20)])
        index = Index.open(place, store=store)
        assert [hit.path for hit in index.search(unit(20)[4:5], 1)[0]] == ["p4"]
        assert index.remove(paths=["p4"]) == 1 and len(index) == 19


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda index: index.search(torch.eye(4)), "holds vectors with 16 columns, got 4"),
        (lambda index: index.search(torch.full((1, 16), torch.nan)), "vectors must be finite"),
        (lambda index: index.search(unit(1), 0), "k must be at least 1"),
        (lambda index: index.search(unit(1), 1, search_effort=0), "search_effort must be at least 1"),
        (lambda index: index.add(unit(2), paths=["a"]), "paths must hold one text or None per vector, 2, got 1"),
        (lambda index: index.add(torch.ones(16)), r"must have shape \(N, D\)"),
    ],
)
def test_errors(call, words, tmp_path):
    index = Index.create(tmp_path / "index", dim=16)
    index.add(unit(3))
    with pytest.raises(ValueError, match=words):
        call(index)
    assert len(Index.open(tmp_path / "index")) == 3


def test_an_empty_index_says_so(tmp_path):
    index = Index.create(tmp_path / "index", dim=16)
    with pytest.raises(ValueError, match="is empty; put something in with: polyanchor index add"):
        index.search(unit(1))
    assert index.add(torch.empty(0, 16)).new == 0


def test_either_a_model_or_a_width(tmp_path):
    with pytest.raises(ValueError, match="either a model .* or, for vectors alone, their width"):
        Index.create(tmp_path / "index")
    with pytest.raises(ValueError, match="--store must be qdrant:http://HOST:PORT, got 'faiss'"):
        Index.create(tmp_path / "index", dim=3, store="faiss")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf"])
def test_nothing_in_is_nothing_out(tmp_path, kind):
    index = Index.create(tmp_path / "index", dim=4, kind=kind)
    for none in (torch.empty(0, 4), []):
        assert index.search(none) == []  # also while it is empty
        assert (index.add(none).new, len(index)) == (0, 0)
    with pytest.raises(ValueError, match="index is empty; put something in"):
        index.search(torch.ones(1, 4))
    index.add(torch.eye(4))
    for none in (torch.empty(0, 4), []):
        assert index.search(none) == index.search(none, exact=True) == []
        assert index.add(none).ids.tolist() == []
    assert (index.find([]), index.remove(), len(index)) == ([], 0, 4)
    assert [len(hits) for hits in index.search(torch.ones(2, 4), k=99)] == [4, 4]
    for act in (index.search, index.add):
        with pytest.raises(ValueError, match="the index holds vectors with 4 columns, got 7"):
            act(torch.empty(0, 7))


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
@pytest.mark.parametrize(("text", "shown"), [("caf\udce9.png", r"caf\\xe9\.png"), ("\ud800", r"\\ud800")])
def test_texts_that_are_not_utf8_are_refused_by_name_before_any_work(tmp_path, monkeypatch, kind, text, shown):
    index = Index.create(tmp_path / "index", dim=4, kind=kind)
    held = sorted(file.name for file in (tmp_path / "index").iterdir())
    monkeypatch.setattr(index, "_vectors", None)
    for what, options in (("paths", {"paths": ["a", text]}), ("labels", {"labels": ["a", text]})):
        with pytest.raises(ValueError, match=f"{what}: the name {shown} is not UTF-8"):
            index.add(torch.ones(2, 4), **options)
    for act in (index.find, lambda paths: index.remove(paths=paths)):
        with pytest.raises(ValueError, match=f"the name {shown} is not UTF-8"):
            act([text])
    assert sorted(file.name for file in (tmp_path / "index").iterdir()) == held


def test_an_image_in_a_file_whose_name_is_not_utf8(photos, tmp_path):
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    Image.open(photos / "class2" / "3.png").save(photos / name)
    index = Index.create(tmp_path / "index", model=Colours())
    index.add([photos / "class2" / "3.png", photos / "class0" / "0.png"])
    [[hit]] = index.search(photos / name, 1)
    assert hit.id == 0  # searched with, it is written nowhere
    with pytest.raises(ValueError, match=r"caf\\xe9\.png is not UTF-8; rename it"):
        index.add([photos / name])
    assert len(index) == 2


def test_arrays_are_searched_as_vectors(tmp_path):
    vectors = torch.randn(5, 4)
    index = Index.create(tmp_path / "index", dim=4)
    assert index.add(vectors.numpy()).ids.tolist() == [0, 1, 2, 3, 4]
    assert index.search(vectors.numpy()[:2], 2) == index.search(vectors[:2], 2)
    with pytest.raises(ValueError, match="was made for vectors alone"):
        index.search(tmp_path / "a.png")
