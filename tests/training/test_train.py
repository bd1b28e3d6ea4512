"""The main job on small images: exact resuming, validation by class, frozen warm-up, the files it leaves."""

import gc
import json
import os

import pytest
import torch
from PIL import Image

from polyanchor.cli.app import run
from polyanchor.config.builders import make_loss, make_model, open_parts, with_recipe
from polyanchor.config.loading import load_config
from polyanchor.datasets.items import Items
from polyanchor.runs.folder import RunFolder
from polyanchor.training.module import parameter_groups
from polyanchor.training.stopping import Interrupted, StopRequest
from polyanchor.training.train import train
from tests.compare import features
from tests.tiny_runs import config
from tests.tiny_runs import settings as runs_settings


def test_a_split_with_a_validation_part_trains_chooses_and_measures_with_its_own_items(photos, tmp_path):
    for image in sorted(photos.rglob("*.png")):
        part = ("train", "train", "train", "train", "Val", "Val", "TEST", "TEST")[int(image.stem)]
        place = tmp_path / "parts" / part / image.parent.name
        place.mkdir(parents=True, exist_ok=True)
        (place / image.name).write_bytes(image.read_bytes())
    settings = [f"data.source=folder:{tmp_path / 'parts'}", "run.epochs=1", "run.k=[1]"]
    small = [one for one in runs_settings(photos) if not one.startswith(("data.", "run.k"))]
    report = train(load_config(settings=[*small, *settings]), tmp_path / "run")
    assert len(report.per_query["mrr"]) == 12
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert split["validation_classes"] == split["train_classes"] == split["test_classes"] == list(range(6))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["chosen_by"].startswith("best map@r on validation")
    assert any("validation part of 12 items chooses the epoch" in note for note in report.notes)
    with pytest.raises(ValueError, match=r"validation part of its own, so data.val_share = 0.5 cannot apply"):
        open_parts(load_config(settings=[*settings, "data.val_share=0.5"]))


def test_cut_offs_that_nobody_asked_for_are_cut_to_what_fits(photos, tmp_path):
    for image in photos.rglob("*.png"):
        if int(image.stem) > 2:
            image.unlink()
    small = [one for one in runs_settings(photos) if not one.startswith("run.k=")]
    report = train(load_config(settings=[*small, "run.epochs=1"]), tmp_path / "run")  # 2 classes of 3 items each
    assert [name for name in report.means if name.startswith("ndcg")] == ["ndcg@1", "ndcg@2", "ndcg@4"]
    assert load_config(tmp_path / "run" / "config.toml").run.k == (1, 2, 4)
    with pytest.raises(ValueError, match=r"run.k must be at most 5.*got 8; --run.k '\[1, 2\]' fits"):
        train(config(photos, "run.epochs=1"), tmp_path / "refused")
    assert not (tmp_path / "refused" / "config.toml").exists()


@pytest.mark.slow
def test_a_run_says_which_pooling_and_which_weights_it_took(photos, tmp_path):
    state = make_model(config(photos), open_parts(config(photos)).train).backbone.state_dict()
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "w.pth")
    said = []
    chosen = config(photos, "run.epochs=1", f"model.weights={tmp_path / 'w.pth'}")
    assert chosen.model.pooling == "auto"
    train(chosen, tmp_path / "run", announce=said.append)
    assert RunFolder(tmp_path / "run").read_config().model.pooling == "avg+max"
    note = "backbone weights: state_dict_ema of w.pth"
    assert f"note      {note}" in said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert note in results["test"]["notes"]
    assert results["config"]["model"]["pooling"] == "avg+max"


class StopAfter(StopRequest):
    """A request that is there when the run looks for the n-th time: after each step and after each epoch."""

    def __init__(self, n):
        self.left = n

    @property
    def made(self):
        self.left -= 1
        return self.left <= 0


def weights(folder):
    return torch.load(RunFolder(folder).last, weights_only=True)["state_dict"]


def test_a_run_goes_on_from_what_another_has_learned(photos, tmp_path, trained_on_photos):
    """Its folder is a file of weights; a saved embedder's too."""
    learned = RunFolder(trained_on_photos).load_model().backbone.state_dict()
    assert run(["export", str(trained_on_photos), "--to", "safetensors", "--out", str(tmp_path / "saved")]) == 0
    for folder in (trained_on_photos, tmp_path / "saved"):
        of = config(photos, f"model.weights={folder}")
        begun = make_model(of, open_parts(of).train).backbone.state_dict()
        assert all(torch.equal(begun[name], tensor) for name, tensor in learned.items())
    assert with_recipe(of).model.head == "none"


def same_run(one, other):
    """All that two finished runs leave behind, but for times."""
    for file in ("last", "best"):
        states = [torch.load(getattr(RunFolder(f), file), weights_only=True)["state_dict"] for f in (one, other)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), file
    results = [json.loads(RunFolder(f).results.read_text()) for f in (one, other)]
    for key in ("test", "epoch", "validation", "epochs", "config"):
        assert results[0][key] == results[1][key], key


@pytest.mark.slow
def test_what_a_run_leaves_behind(photos, tmp_path):
    said = []
    report = train(config(photos, "run.epochs=2"), tmp_path / "run", announce=said.append)
    folder = RunFolder(tmp_path / "run")
    results = json.loads(folder.results.read_text())
    assert results["test"]["means"]["map@r"] == report.means["map@r"]
    assert report.queries == 16  # two of the six classes never trained
    split = json.loads(folder.split.read_text())
    assert len(split["train_classes"]) == len(split["validation_classes"]) == 2
    assert set(split["train_classes"] + split["validation_classes"]) == {0, 1, 2, 3}
    assert results["chosen_by"] == "best map@r on validation classes"
    assert load_config(folder.config) == with_recipe(config(photos, "run.epochs=2", "model.pooling=avg+max"))
    assert any("= 30 x backbone" in line and "length 1.00" in line for line in said)
    assert len([line for line in said if line.startswith("epoch") and "val/map@r" in line]) == 2
    assert sorted(p.name for p in folder.checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    checkpoint = torch.load(folder.last, weights_only=True)
    assert checkpoint["state_dict"]["loss.proxies"].shape == (2, 2, 8)
    assert "config" in checkpoint["polyanchor"]
    assert checkpoint["polyanchor"]["split"] == split


@pytest.mark.slow
@pytest.mark.parametrize("look", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["balanced", "shuffled"])
def test_two_epochs_are_one_and_a_resumed_one(photos, tmp_path, look, kind):
    """Two steps an epoch, so three looks: the stop comes inside an epoch, in its last step, at its end."""
    of = config(
        photos,
        "run.epochs=2",
        f"batches.sampler={kind}",
        "batches.classes_per_batch=2",
        "batches.samples_per_class=4",
        "optim.warmup_epochs=1",
    )
    whole = train(of, tmp_path / "whole")
    if look < 5:
        with pytest.raises(Interrupted):
            train(of, tmp_path / "parts", stop=StopAfter(look))
        report = train(of, tmp_path / "parts", resume=True)
    else:  # in the very last step: nothing is left to stop
        report = train(of, tmp_path / "parts", stop=StopAfter(look))
    same_run(tmp_path / "whole", tmp_path / "parts")
    assert report.means == whole.means


@pytest.mark.slow
def test_what_an_epoch_has_counted_goes_on_with_it(photos, tmp_path):
    """Mean loss, images that were left out and the time, of a run that stops in each of four steps."""
    bad = sorted(photos.rglob("*.png"))[::3]
    for path in bad:
        path.write_bytes(b"not an image")
    of = config(photos, "run.epochs=1", "batches.samples_per_class=2", "data.on_bad_image=skip", "model.freeze_bn=true")
    whole = train(of, tmp_path / "whole")
    assert any("in training" in note for note in whole.notes)
    for _ in range(3):
        with pytest.raises(Interrupted):
            train(of, tmp_path / "parts", resume=(tmp_path / "parts").exists(), stop=StopAfter(1))
    left = torch.load(RunFolder(tmp_path / "parts").last, weights_only=True)
    kept = next(state for name, state in left["callbacks"].items() if name.startswith("Checkpoints"))
    report = train(of, tmp_path / "parts", resume=True)
    same_run(tmp_path / "whole", tmp_path / "parts")
    assert report.notes == whole.notes
    assert json.loads(RunFolder(tmp_path / "parts").results.read_text())["seconds"] > kept["seconds"] > 0


@pytest.mark.slow
def test_a_run_whose_last_epoch_is_done_keeps_the_notes_of_its_validation(photos, tmp_path):
    for path in sorted(photos.rglob("0.png")):
        path.write_bytes(b"not an image")
    of = config(photos, "run.epochs=1", "data.on_bad_image=skip")
    whole = train(of, tmp_path / "run")
    again = train(of, tmp_path / "run", resume=True)
    assert any(note.startswith("validation: ") for note in whole.notes)
    assert again.notes == whole.notes


@pytest.mark.slow
def test_random_layers_go_on_where_they_were(photos, tmp_path, monkeypatch):
    """Dropout draws from torch's own generator, unlike batches and augmentation."""

    def with_dropout(config, items):
        model = make_model(config, items)
        model.neck = torch.nn.Dropout()
        return model

    monkeypatch.setattr("polyanchor.training.train.make_model", with_dropout)
    of = config(photos, "run.epochs=2", "batches.samples_per_class=4")
    train(of, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(of, tmp_path / "parts", stop=StopAfter(1))
    torch.rand(100)  # another process would stand elsewhere
    train(of, tmp_path / "parts", resume=True)
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_a_kill_between_epochs_resumes_exactly(photos, tmp_path):
    """No request to stop: the process just ends after the first epoch's checkpoint."""
    whole = config(photos, "optim.schedule=constant", "run.epochs=2")
    train(whole, tmp_path / "whole")
    train(config(photos, "optim.schedule=constant", "run.epochs=1"), tmp_path / "parts")
    train(whole, tmp_path / "parts", resume=True)
    same_run(tmp_path / "whole", tmp_path / "parts")
    assert load_config(RunFolder(tmp_path / "parts").config).run.epochs == 2


def test_a_start_that_failed_is_resumed_from_the_beginning(photos, tmp_path):
    images = {path: path.read_bytes() for path in photos.rglob("*.png")}
    for path, content in images.items():
        path.write_bytes(content[:60])  # the head is there, and so it is opened before the run begins
    with pytest.raises(ValueError, match="png"):
        train(config(photos, "run.epochs=1"), tmp_path / "run")
    for path, content in images.items():
        path.write_bytes(content)
    said = []
    train(config(photos, "run.epochs=1"), tmp_path / "run", resume=True, announce=said.append)
    assert "no checkpoint has been written yet: beginning anew" in said


def test_a_transformer_is_made_for_the_size_of_the_images_or_says_which_it_takes(photos):
    chosen = config(photos, "model.backbone=test_vit", "images.size=40", "images.resize=40")
    with pytest.raises(ValueError, match="take images of 40 x 40 pixels .*16 x 16 .* set images.size to 32 or 48"):
        make_model(chosen, open_parts(chosen).train)
    fitting = config(photos, "model.backbone=test_vit", "images.size=48", "images.resize=48")
    assert make_model(fitting, open_parts(fitting).train).backbone.patch_embed.img_size == (48, 48)


def test_a_cut_off_that_does_not_fit_is_refused_before_anything_is_done(photos, tmp_path):
    with pytest.raises(ValueError, match="run.k must be at most 15, .* got 20"):
        train(config(photos, "run.k=[1, 20]"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["cuda", "gpu", "cdua"])
def test_an_accelerator_that_is_not_there_is_refused_before_anything_is_done(photos, tmp_path, name, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"run.accelerator must be auto or cpu on this machine, got '{name}'"):
        train(config(photos, f"run.accelerator={name}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_synchronised_batch_norms_need_an_accelerator(photos, tmp_path):
    with pytest.raises(ValueError, match="model.sync_bn needs an accelerator, got a CPU"):
        train(config(photos, "model.sync_bn=true", "run.accelerator=cpu"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("train_cut", ["random-crop", "random-resized-crop"])
def test_workers_do_not_change_the_result(photos, tmp_path, train_cut):
    of = f"images.train={train_cut}"
    train(config(photos, "run.epochs=1", of), tmp_path / "none")
    train(config(photos, "run.epochs=1", of, "data.workers=2"), tmp_path / "two")
    one, other = weights(tmp_path / "none"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_the_memory_format_that_is_asked_for_reaches_the_network(photos, tmp_path, monkeypatch):
    seen = []

    def watched(config, items):
        model = make_model(config, items)
        model.backbone.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0]) if module.training else None
        )
        return model

    monkeypatch.setattr("polyanchor.training.train.make_model", watched)
    for channels_last in (True, False):
        of = config(photos, "run.epochs=1", "data.val_share=0", f"run.channels_last={str(channels_last).lower()}")
        train(of, tmp_path / str(channels_last))
        first = seen[0]
        assert first.is_contiguous(memory_format=torch.channels_last) == channels_last
        assert first.is_contiguous() != channels_last
        seen.clear()


@pytest.mark.slow
def test_a_batch_in_pieces_is_the_same_training(photos, tmp_path, monkeypatch):
    """In float64 with fixed batch norms, the same to rounding; the images that the network sees to the last bit."""
    seen = []

    def watched(config, items):
        model = make_model(config, items)
        model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
        return model

    monkeypatch.setattr("polyanchor.training.train.make_model", watched)
    found, images = {}, {}
    for piece in (0, 2):
        of = config(
            photos,
            "run.epochs=2",
            "run.precision=64-true",
            "model.freeze_bn=true",
            "optim.clip=norm",
            "optim.clip_value=0.5",
            f"batches.micro_batch_size={piece}",
        )
        train(of, tmp_path / str(piece))
        found[piece], images[piece] = weights(tmp_path / str(piece)), list(seen)
        seen.clear()
    whole, pieces = images[0], [images[2][start : start + 5] for start in range(0, len(images[2]), 5)]
    assert [len(one) for one in pieces[0]] == [2, 2, 2, 2, 2]  # three pieces; two again for their gradients
    for batch, parts in zip(whole, pieces, strict=True):
        assert torch.equal(batch, torch.cat(parts[:3]))
        assert torch.equal(torch.cat(parts[3:][::-1]), torch.cat(parts[:2]))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[2][name], tensor, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_a_batch_in_pieces_resumes_exactly(photos, tmp_path):
    of = config(photos, "run.epochs=2", "batches.samples_per_class=4", "batches.micro_batch_size=3")
    train(of, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(of, tmp_path / "parts", stop=StopAfter(1))
    train(of, tmp_path / "parts", resume=True)
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_double_precision_resumes_exactly(tmp_path):
    of = features.config(features.write(tmp_path / "v.safetensors"), "run.precision=64-true")
    train(of, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(of, tmp_path / "parts", stop=StopAfter(1))
    train(of, tmp_path / "parts", resume=True)
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_another_configuration_is_not_resumed(subtests, photos, trained_on_photos):
    for key, value in (
        ("optim.lr", "1e-2"),
        ("run.seed", "1"),
        ("data.val_share", "0.6"),
        ("batches.samples_per_class", "4"),
        ("run.monitor", "mrr"),
    ):
        with subtests.test(key), pytest.raises(ValueError, match=f"got another {key}"):
            train(config(photos, "run.epochs=2", f"{key}={value}"), trained_on_photos, resume=True)


def test_changed_data_is_not_resumed(photos, tmp_path):
    of = config(photos, "run.epochs=1")
    train(of, tmp_path / "run")
    for image in (photos / "class0").iterdir():
        image.rename(image.with_name("new" + image.name))
    with pytest.raises(ValueError, match="the items of .* are not those that .* was begun with"):
        train(of, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_changed_contents_are_not_resumed(photos, tmp_path):
    of = config(photos, "run.epochs=1")
    train(of, tmp_path / "run")
    before = (photos / "class5" / "3.png").read_bytes()
    Image.new("RGB", (16, 16)).save(photos / "class5" / "3.png")
    with pytest.raises(ValueError, match="have the names that they had when .* was begun, and other contents"):
        train(of, tmp_path / "run", resume=True)
    of_all = config(photos, "run.epochs=1", "data.on_changed=accept")
    for _ in range(2):  # the note stays
        report = train(of_all, tmp_path / "run", resume=True)
        assert "some items changed while the run was interrupted" in report.notes
    (photos / "class5" / "3.png").write_bytes(before)
    train(of, tmp_path / "other")
    os.utime(photos / "class5" / "3.png", (0, 0))  # a copy has other times
    assert train(of, tmp_path / "other", resume=True).notes == ()


def test_a_folder_with_a_run_is_not_overwritten(photos, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty; take another --out"):
        train(config(photos, "run.epochs=2"), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_three_groups_with_their_rates(photos):
    of = config(photos, "optim.lr=1e-3", "optim.head_lr_mult=5", "optim.proxy_lr_mult=70")
    parts = open_parts(of)
    model, loss = make_model(of, parts.train), make_loss(of, 2)
    groups = {group["name"]: group for group in parameter_groups(model, loss, of)}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"backbone": 1e-3, "head": 5e-3, "proxies": 7e-2}
    )
    assert groups["proxies"]["params"][0] is loss.proxies
    assert groups["proxies"]["weight_decay"] == 0
    together = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(together) == sorted(id(p) for module in (model, loss) for p in module.parameters())


def test_the_backbone_stands_still_during_warm_up(photos, tmp_path):
    of = config(photos, "optim.warmup_epochs=1", "run.epochs=2", "optim.schedule=constant")
    with pytest.raises(Interrupted):
        train(of, tmp_path / "run", stop=StopAfter(4))  # inside the second epoch
    torch.manual_seed(of.run.seed)
    fresh = make_model(of, open_parts(of).train).state_dict()
    after_one = torch.load(RunFolder(tmp_path / "run").best, weights_only=True)["state_dict"]
    for name, tensor in fresh.items():
        if name.startswith("backbone."):
            assert torch.equal(after_one[f"model.{name}"], tensor), name
    assert not torch.equal(after_one["model.head.weight"], fresh["head.weight"])
    after_more = weights(tmp_path / "run")
    assert any(
        not torch.equal(after_more[f"model.{name}"], tensor)
        for name, tensor in fresh.items()
        if name.startswith("backbone.") and name.endswith(".weight")
    )


@pytest.mark.slow
def test_softtriple_trains_its_centres(photos, tmp_path):
    of = config(photos, "loss.name=softtriple", "run.epochs=1", "loss.gamma=0.3", "optim.renormalize_proxies=false")
    assert make_loss(of, 2).loss.gamma == 1 / 0.3
    train(of, tmp_path / "run")
    lengths = weights(tmp_path / "run")["loss.loss.fc"].norm(dim=0)
    assert not torch.allclose(lengths, torch.ones(4))  # they start at 1; Adam moved them


def test_vectors_train_a_head(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    labels = torch.arange(80) % 8
    save_file(
        {"vectors": torch.randn(80, 12) + 3 * torch.eye(8, 12)[labels], "labels": labels},
        tmp_path / "f.safetensors",
    )
    of = load_config(
        settings=[
            f'data.source="features:{tmp_path / "f.safetensors"}"',
            "model.backbone=none",
            "data.val_share=0.5",
            "batches.classes_per_batch=2",
            "run.epochs=2",
        ]
    )
    assert train(of, tmp_path / "run").means["recall@1"] > 0.3


def test_images_need_a_backbone(photos, tmp_path):
    with pytest.raises(ValueError, match="holds images, and model.backbone = 'none' takes vectors"):
        train(config(photos, "model.backbone=none"), tmp_path / "run")


@pytest.mark.slow
def test_mixed_precision_keeps_the_proxies_and_their_optimizer_state_wide(photos, tmp_path):
    # larger images than elsewhere: torch 2.14 takes memory that nobody wrote for the bfloat16 gradient of a convolution
    # with stride 2 over a single pixel
    sizes = "images.size=64", "images.resize=64"
    train(config(photos, "run.epochs=1", "run.precision=bf16-mixed", *sizes), tmp_path / "run")
    state = torch.load(RunFolder(tmp_path / "run").last, weights_only=True)
    moments = [t for entry in state["optimizer_states"][0]["state"].values() for t in entry.values()]
    assert {t.dtype for t in [state["state_dict"]["loss.proxies"], *moments]} == {torch.float32}


@pytest.mark.slow
def test_double_precision_runs_to_the_end(photos, tmp_path):
    train(config(photos, "run.epochs=1", "run.precision=64-true"), tmp_path / "run")
    assert weights(tmp_path / "run")["loss.proxies"].dtype == torch.float64


@pytest.mark.slow
def test_a_second_run_does_not_hold_the_data_of_the_first(tmp_path):
    vectors = features.write(tmp_path / "v.safetensors")
    held = []
    for number in range(3):
        train(features.config(vectors, "run.epochs=1"), tmp_path / str(number))
        held.append(sum(type(thing) is Items for thing in gc.get_objects()))  # isinstance would wake lazy modules
    assert held[2] <= held[0] + 1
