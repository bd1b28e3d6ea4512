"""What `auto` becomes: by the weights and the kind of the input, never against what was set."""

import pytest

from polyanchor.config.builders import with_recipe
from polyanchor.config.loading import load_config


@pytest.mark.parametrize(
    ("settings", "recipe"),
    [
        ([], ("hub", "center", "none", True, "items", 16)),
        (["model.weights=w.pth"], ("w.pth", "center", "none", True, "items", 16)),
        (['model.weights=""'], ("", "none", "linear", False, "random", 32)),
        (["model.backbone=none"], ("", "none", "pca", False, "items", 32)),
        (["model.head=linear"], ("hub", "center", "linear", True, "items", 32)),
        (["model.neck=layernorm", "model.freeze_bn=false"], ("hub", "layernorm", "none", False, "items", 16)),
        (["optim.proxy_start=random", "loss.alpha=8"], ("hub", "center", "none", True, "random", 8)),
        (["model.sync_bn=true"], ("hub", "center", "none", False, "items", 16)),
    ],
)
def test_the_rules(settings, recipe):
    config = with_recipe(load_config(settings=settings))
    model = config.model
    got = model.weights, model.neck, model.head, model.freeze_bn, config.optim.proxy_start, config.loss.alpha
    assert got == recipe
    assert with_recipe(config) == config
