"""Configuration files: strict, round trip, errors that help."""

import re

import pytest

from polyanchor.config.loading import (
    ALIASES,
    ConfigError,
    change_config,
    dump_config,
    explain_config,
    key_of_flag,
    load_config,
)
from polyanchor.config.schema import LOSSES, Config


def test_defaults_file_and_settings_in_that_order(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[loss]\nanchor = "data"\nalpha = 16\n[run]\nepochs = 3\n')
    config = load_config(file, ["loss.anchor=mixed", "run.k=[1, 10]", "run.monitor=ndcg@10"])
    assert (config.loss.anchor, config.loss.alpha, config.run.epochs) == ("mixed", 16.0, 3)
    assert config.run.k == (1, 10)
    assert config.optim == Config().optim


def test_what_is_written_is_read_back(tmp_path):
    config = load_config(settings=["data.source=folder:my photos", "images.scale=[0.2, 0.9]", "loss.delta=-0.1"])
    (tmp_path / "c.toml").write_text(dump_config(config))
    assert load_config(tmp_path / "c.toml") == config


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("loss.ancor=data", r"unknown key 'loss.ancor'; did you mean 'loss.anchor'\?"),
        ("optm.lr=1", r"unknown key 'optm'; did you mean 'optim'\?"),
        ("loss.anchor=item", "loss.anchor: Input should be 'class', 'data' or 'mixed', got 'item'"),
        ("loss.alpha=-3", "loss.alpha: Input should be greater than 0, or 'auto', got -3"),
        ("loss.alpha=nan", "loss.alpha"),
        ("loss.delta=nan", "loss.delta"),
        ("run.k=[]", "run.k"),
        ("loss.anchor", "a setting is section.key=value, got 'loss.anchor'"),
        ("alpha=3", "a setting is section.key=value, got 'alpha=3'"),
        ("images.size=512", "images.resize must be at least images.size = 512, got 256"),
        ("run.monitor=map", "run.monitor must be one of recall@1.*got 'map'; did you mean 'map@r'"),
        ("optim.warmup_epochs=50", "optim.warmup_epochs must be below run.epochs = 20, got 50"),
    ],
)
def test_errors_name_the_key_and_what_is_known(setting, words):
    with pytest.raises(ConfigError, match=words):
        load_config(settings=[setting])


def test_a_file_that_is_not_toml(tmp_path):
    (tmp_path / "c.toml").write_text("loss: anchor")
    with pytest.raises(ConfigError, match=r"c.toml is not valid TOML"):
        load_config(tmp_path / "c.toml")


def sections():
    """Every table of keys: name of the section, the loss it is for or "", the model."""
    for name, part in Config.model_fields.items():
        if name != "loss":
            yield name, "", part.annotation
    for loss, table in LOSSES.items():
        yield "loss", loss, table


def test_every_key_says_what_it_is():
    for _, loss, table in sections():
        assert table.__doc__
        for name, field in table.model_fields.items():
            assert field.description or (loss and name == "name"), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss.negative_sample_rate=0.5"], "loss.negative_sample_rate = 0.5 needs loss.proxy_sharding = 'class'"),
        (
            ["loss.proxy_sharding=class", "loss.negative_sample_rate=0.5", "loss.center_reg=1"],
            "loss.center_reg is a mean over all",
        ),
        (["loss.proxy_sharding=class", "run.precision=16-mixed"], "take bf16-mixed"),
        (
            ["model.sync_bn=true", "batches.micro_batch_size=4"],
            "model.sync_bn and batches.micro_batch_size exclude each other",
        ),
        (["model.sync_bn=true", "model.freeze_bn=true"], "model.sync_bn and model.freeze_bn exclude each other"),
        (["run.devices=0"], "run.devices: Input should be greater than or equal to 1"),
    ],
)
def test_what_several_devices_cannot_do_together(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(settings=settings)


def test_keys_that_do_not_apply_to_another_loss_are_refused():
    with pytest.raises(ConfigError, match="loss.alpha has no meaning for loss.name='softtriple', whose keys are name,"):
        load_config(settings=["loss.name=softtriple", "loss.alpha=16"])
    assert load_config(settings=["loss.name=softtriple", "loss.gamma=0.2"]).loss.gamma == 0.2
    with pytest.raises(ConfigError, match=r"unknown key 'loss.scal'; did you mean 'loss.scale'\?"):
        load_config(settings=["loss.name=arcface", "loss.scal=16"])
    with pytest.raises(ConfigError, match="loss.scale: Input should be greater than 0, got -1"):
        load_config(settings=["loss.name=arcface", "loss.scale=-1"])


def test_an_unknown_loss_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"loss.name must be one of multi-proxy-anchor, .*got 'arcfac'; did you mean"):
        load_config(settings=["loss.name=arcfac"])


def test_another_loss_begins_at_its_own_defaults():
    base = load_config(settings=["loss.anchor=data", "loss.alpha=8", "optim.lr=0.5"])
    other = change_config(base, ["loss.name=arcface", "loss.scale=30"])
    assert other.loss.model_dump() == {"name": "arcface", "margin": 28.6, "scale": 30.0}
    assert other.optim == base.optim
    same = change_config(base, ["loss.delta=0.3"])
    assert (same.loss.anchor, same.loss.alpha, same.loss.delta) == ("data", 8.0, 0.3)
    assert load_config(None, []).loss.name == "multi-proxy-anchor"


def test_a_number_is_a_fine_name():
    assert load_config(settings=["data.root=2024"]).data.root == "2024"


@pytest.mark.parametrize(
    ("settings", "batch"),
    [
        (["batches.batch_size=480"], (120, 4, 0)),
        (["batches.samples_per_class=6", "batches.batch_size=240", "batches.micro_batch_size=60"], (40, 6, 60)),
        (["batches.sampler=shuffled", "batches.batch_size=50"], (50, 1, 0)),
        (["batches.sampler=shuffled", "batches.batch_size=60"], (15, 4, 0)),
    ],
)
def test_a_batch_size_becomes_classes_and_items_of_each(settings, batch):
    batches = load_config(settings=settings).batches
    assert (batches.classes_per_batch, batches.samples_per_class, batches.micro_batch_size) == batch


def test_a_batch_size_holds_whole_classes():
    for value, words in (
        (482, "got 482; take 480"),
        (3, "got 3; take 4"),
        ("x", "whole number of at least 1, got 'x'"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_config(settings=[f"batches.batch_size={value}"])


@pytest.mark.parametrize(
    ("settings", "images"),
    [
        (["images.image_size=448"], (448, 512)),
        (["images.image_size=64", "images.resize=64"], (64, 64)),
        (["images.size=64", "images.resize=64"], (64, 64)),
        (["images.size=64", "images.image_size=64"], (64, 73)),
    ],
)
def test_an_image_size_keeps_the_proportion_of_the_resizing(settings, images, tmp_path):
    assert tuple(load_config(settings=settings).images.model_dump().values())[:2] == images
    file = tmp_path / "c.toml"
    file.write_text("[images]\nsize = 96\nresize = 96\n")
    assert load_config(file, ["images.image_size=48"]).images.resize == 48


def test_a_loss_by_its_short_name():
    data = load_config(settings=["loss.loss=data"]).loss
    assert (data.name, data.anchor) == ("multi-proxy-anchor", "data")
    assert load_config(settings=["loss.loss=softtriple", "loss.proxies_per_class=2"]).loss.proxies_per_class == 2
    with pytest.raises(
        ConfigError, match=r"--loss must be one of class, data, mixed, .*got 'mixd'; did you mean 'mixed'"
    ):
        load_config(settings=["loss.loss=mixd"])
    with pytest.raises(ConfigError, match="--loss sets loss.anchor to 'data', which is also set to 'class'"):
        load_config(settings=["loss.loss=data", "loss.anchor=class"])


def test_a_device_has_no_number():
    assert load_config(settings=["run.device=cpu"]).run.accelerator == "cpu"
    with pytest.raises(ConfigError, match="CUDA_VISIBLE_DEVICES=1 before the command and --device cuda"):
        load_config(settings=["run.device=cuda:1"])


def test_a_bare_path_gets_the_kind_of_its_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    file = tmp_path / "c.toml"
    file.write_text("[data]\nsource = 'list.csv'\ntest = 'clip.npy'\n")
    assert load_config(settings=["data.source=2024"]).data.source == "folder:2024"
    assert load_config(file).data.source == "csv:list.csv" and load_config(file).data.test == "features:clip.npy"


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("--optim.lr", "optim.lr"),
        ("--lr", "optim.lr"),
        ("--val-share", "data.val_share"),
        ("--val_share", "data.val_share"),
        ("--epsilon", "loss.epsilon"),
        ("--loss", "loss.loss"),
    ],
)
def test_the_key_of_a_flag(flag, key):
    assert key_of_flag(flag) == key


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--pooling", "--loss.pooling or --model.pooling; write one of them"),
        ("--learning-rate", "did you mean --optim.lr?"),
        ("--epoch", "did you mean '--epochs'?"),
        ("--micro-batch", "did you mean '--micro-batch-size'?"),
    ],
)
def test_a_flag_that_names_no_key(flag, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        key_of_flag(flag)


@pytest.mark.parametrize("settings", [[], *([f"loss.name={name}"] for name in LOSSES)])
def test_the_explained_configuration_is_read_back(settings, tmp_path):
    config = load_config(settings=[*settings, "run.k=[1, 10]", "run.loggers=[]", 'data.root="a \\"b\\" \\\\ c"'])
    text = explain_config(config)
    (tmp_path / "c.toml").write_text(text)
    assert load_config(tmp_path / "c.toml") == config
    for line in text.splitlines():
        if line.startswith("# --"):  # each flag that it names is one
            assert key_of_flag(line.split()[1])
    (tmp_path / "c.toml").write_text(explain_config(Config()))
    assert load_config(tmp_path / "c.toml") == Config()


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("optim.learning_rate=1", "optim.lr"),
        ("epochs=3", "run.epochs"),
        ("optim.backbone=x", "model.backbone"),
        ("run.size=64", "images.size"),
    ],
)
def test_names_that_others_use_lead_to_the_key(setting, key):
    with pytest.raises(ConfigError, match=f"did you mean '?{key}"):
        load_config(settings=[setting])


def test_every_alias_names_a_key():
    keys = {f"{section}.{name}" for section, _, table in sections() for name in table.model_fields}
    assert {key.partition(" ")[0] for key in ALIASES.values()} <= keys


def test_one_value_is_a_list_of_one():
    assert load_config(settings=["run.k=1", "run.monitor=recall@1"]).run.k == (1,)
    assert load_config(settings=["run.loggers=csv"]).run.loggers == ("csv",)


def test_counts_beyond_any_machine_are_refused(subtests):
    for key in ("run.epochs", "loss.proxies_per_class", "batches.classes_per_batch", "model.embedding_dim"):
        with subtests.test(key), pytest.raises(ConfigError, match=key):
            load_config(settings=[f"{key}=9999999999999"])


def test_a_file_may_begin_with_a_mark_and_a_fault_in_it_names_it(tmp_path):
    file = tmp_path / "c.toml"
    file.write_bytes(b"\xef\xbb\xbf[run]\nepochs = 7\n")
    assert load_config(file).run.epochs == 7
    file.write_text("[run]\nepochs = 0\n")
    with pytest.raises(ConfigError, match=r"^.*c\.toml: run\.epochs"):
        load_config(file)
    with pytest.raises(ConfigError, match=r"^optim\.lr"):
        load_config(file, ["run.epochs=3", "optim.lr=-1"])


def numeric_keys():
    """Every key whose default is a number, of every loss too."""
    for name, section in Config().model_dump().items():
        if name != "loss":
            yield from ((f"{name}.{key}", ()) for key, value in section.items() if type(value) in (int, float))
    for name, kind in LOSSES.items():
        for key, field in kind.model_fields.items():
            if type(field.default) in (int, float):
                yield f"loss.{key}", (f"loss.name={name}",)


def test_no_number_is_taken_that_is_none_or_beyond_any_machine(subtests):
    keys = list(numeric_keys())
    assert len(keys) > 40
    for key, others in keys:
        for value in ("nan", "inf", "-inf", "9" * 40, "1e400"):
            with subtests.test(key, others=others, value=value), pytest.raises(ConfigError, match=key):
                load_config(settings=[*others, f"{key}={value}"])
