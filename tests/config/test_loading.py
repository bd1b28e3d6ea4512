"""Configuration files: strict, round trip, errors that help."""

import pytest

from polyanchor.config.loading import (
    ALIASES,
    ConfigError,
    change_config,
    dump_config,
    load_config,
    with_batch_size,
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
        ("loss.alpha=-3", "loss.alpha: Input should be greater than 0, got -3"),
        ("loss.alpha=nan", "loss.alpha"),
        ("loss.delta=nan", "loss.delta"),
        ("run.k=[]", "run.k"),
        ("loss.anchor", "--set takes section.key=value, got 'loss.anchor'"),
        ("alpha=3", "--set takes section.key=value, got 'alpha=3'"),
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
    ("settings", "items", "batch"),
    [
        ([], 480, (120, 4, 120)),
        (["batches.classes_per_batch=10", "batches.samples_per_class=6"], 240, (40, 6, 60)),
        (["batches.micro_batch_size=24"], 480, (120, 4, 24)),
        ([], 60, (15, 4, 0)),
    ],
)
def test_an_effective_batch_comes_in_pieces_of_the_configured_one(settings, items, batch):
    config = with_batch_size(load_config(settings=settings), items)
    assert (
        config.batches.classes_per_batch,
        config.batches.samples_per_class,
        config.batches.micro_batch_size,
    ) == batch
    assert with_batch_size(config, items) == config  # so a resumed run may be given it again


def test_an_effective_batch_holds_whole_classes():
    with pytest.raises(ConfigError, match="must be a multiple of batches.samples_per_class = 4, got 482; take 480"):
        with_batch_size(Config(), 482)
    with pytest.raises(ConfigError, match="got 3; take 4"):
        with_batch_size(Config(), 3)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("optim.learning_rate=1", "optim.lr"),
        ("epochs=3", "run.epochs"),
        ("batches.batch_size=8", "batches.classes_per_batch"),
        ("optim.backbone=x", "model.backbone"),
        ("run.size=64", "images.size"),
    ],
)
def test_names_that_others_use_lead_to_the_key(setting, key):
    with pytest.raises(ConfigError, match=f"did you mean '?{key}"):
        load_config(settings=[setting])


def test_every_alias_names_a_key():
    for key in ALIASES.values():
        section, _, name = key.partition(" ")[0].partition(".")
        assert name in Config.model_fields[section].annotation.model_fields, key


def test_one_value_is_a_list_of_one():
    assert load_config(settings=["run.k=1", "run.monitor=recall@1"]).run.k == (1,)
    assert load_config(settings=["run.loggers=csv"]).run.loggers == ("csv",)


@pytest.mark.parametrize(
    "key", ["run.epochs", "loss.proxies_per_class", "batches.classes_per_batch", "model.embedding_dim"]
)
def test_numbers_beyond_any_machine_are_refused(key):
    with pytest.raises(ConfigError, match=key):
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


@pytest.mark.parametrize(("key", "others"), list(numeric_keys()))
def test_no_number_is_taken_that_is_none_or_beyond_any_machine(key, others):
    for value in ("nan", "inf", "-inf", "9" * 40, "1e400"):
        with pytest.raises(ConfigError, match=key):
            load_config(settings=[*others, f"{key}={value}"])
