"""Configuration files: strict, round trip, errors that help."""

from pathlib import Path

import pytest
import tomli_w

from polyanchor.training.config import Config
from polyanchor.training.config_file import ConfigError, dump_config, load_config


def test_defaults_file_and_settings_in_that_order(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('[loss]\nanchor = "data"\nalpha = 16\n[run]\nepochs = 3\n')
    config = load_config(file, ["loss.anchor=mixed", "run.k=[1, 10]", "run.select=ndcg@10"])
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
        ("run.select=map", "run.select must be one of recall@1.*got 'map'"),
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


def test_every_key_says_what_it_is():
    for section in Config.model_fields.values():
        for name, field in section.annotation.model_fields.items():
            assert field.description, name


def test_the_documentation_lists_every_key_with_its_default():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for section, part in Config.model_fields.items():
        for name, field in part.annotation.model_fields.items():
            default = "".join(tomli_w.dumps({"x": field.default})[4:].split()).replace(",]", "]")
            row = next((line for line in page.splitlines() if f"| `{section}.{name}` |" in line), "|||")
            shown = row.split("|")[2].strip().strip("`").replace(" ", "")
            same = shown == default or float(shown) == float(default)
            assert same, f"{section}.{name}: {default}"


def test_keys_that_do_not_apply_to_another_loss_are_refused():
    with pytest.raises(ConfigError, match="loss.alpha has no meaning for loss.name = 'softtriple'"):
        load_config(settings=["loss.name=softtriple", "loss.alpha=16"])
    assert load_config(settings=["loss.name=softtriple", "loss.gamma=0.2"]).loss.gamma == 0.2


def test_a_number_is_a_fine_name():
    assert load_config(settings=["data.root=2024"]).data.root == "2024"
