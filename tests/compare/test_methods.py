"""Names of methods to configurations and search spaces."""

import pytest

from polyanchor.compare.plan import KNOWN, parse_method, parse_methods
from polyanchor.config.loading import change_config
from polyanchor.config.schema import Config


def test_every_known_method_can_be_configured_and_searched():
    base = Config()
    for method in parse_methods(["all"]):
        space = method.space(base)
        assert space["optim.lr"].low == pytest.approx(3e-5) and space["optim.lr"].high == pytest.approx(3e-3)
        assert any(key.startswith("loss.") for key in space)
        for end in ("low", "high"):  # both ends of every range are valid values
            change_config(method.config(base), [f"{key}={getattr(values, end)}" for key, values in space.items()])
            assert all(0 < values.low < values.high for values in space.values() if values.log)


def test_losses_between_items_have_no_proxy_rate():
    base = Config()
    for name in KNOWN:
        has = "optim.proxy_lr_mult" in parse_method(name).space(base)
        assert has == (name not in ("multi-similarity", "supcon", "triplet", "contrastive")), name


def test_what_has_no_effect_or_is_set_is_not_searched():
    one = parse_method("one:class,loss.proxies_per_class=1").space(Config())
    assert "loss.gamma" not in one and "loss.gamma" in parse_method("class").space(Config())
    assert "loss.alpha" not in parse_method("class,loss.alpha=16").space(Config())
    none = parse_method("softtriple,loss.proxies_per_class=1").space(Config())
    assert "loss.center_reg" not in none and "loss.scale" in none


def test_labels():
    assert parse_method("class,loss.proxies_per_class=1").label == "class-proxies_per_class1"
    assert parse_method("k1:class,loss.proxies_per_class=1").config(Config()).loss.proxies_per_class == 1


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["arcfac"], r"got 'arcfac'; did you mean 'arcface'\?"),
        (["class", "class"], "two methods are called 'class'"),
        (["../x:class"], r"letters, digits, .*got '../x'"),
        ([":class"], "got ''"),
    ],
)
def test_wrong_names_say_what_was_expected(texts, words):
    with pytest.raises(ValueError, match=words):
        parse_methods(texts)
