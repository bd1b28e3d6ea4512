"""How long does the page of `polyanchor report` take to open with 10,000 points, and how large is it?

Opening is from the start of the navigation until map, curves and classes are drawn, in a fresh headless Chromium
without a GPU, whose WebGL is computed by the processor. The pictures are noise on smooth ground, which compresses worse
than photos. Needs Chromium and selenium; without them the size alone is measured. Run: python -m benchmarks.report_page
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import Row, Target, main, row

QUESTION = "report_page"
CLASSES, IMAGES = {"tiny": 6, "short": 104, "long": 104}, {"tiny": 8, "short": 100, "long": 100}
ROUNDS = {"tiny": 1, "short": 5, "long": 15}
TRAINING = 4  # classes; the rest are searched
PLACES = ["chromium", "chromium-browser", "google-chrome"]


def rows(size: str) -> list[Row]:
    """One row for the size, one for the time where there is a browser."""
    from polyanchor.report.write import write_report

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_images(place / "photos", CLASSES[size], IMAGES[size])
        run = trained(place, CLASSES[size], tiny=size == "tiny")
        written = write_report(run, run / "report.html", points=10_000)
        case = {"points": written.points, "thumbnail px": written.thumbnail}
        found = [
            row(QUESTION, case, {"page": [written.size / 2**20]}, unit="MiB", targets=[Target("page", 15)]),
        ]
        if browser() is not None:
            seconds = [opened(written.path) for _ in range(ROUNDS[size])]
            found.append(row(QUESTION, case | {"what": "opening"}, {"page": seconds}, targets=[Target("page", 3)]))
    return found


def write_images(folder: Path, classes: int, images: int) -> None:
    """A folder for each class: noise on a smooth ground that the class has for itself, 128 pixels, JPEG."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(classes):
        ground = rng.integers(0, 255, (4, 4, 3)).astype(np.float64)
        (folder / f"class{number:03d}").mkdir(parents=True)
        for image in range(images):
            coarse = np.clip(ground + rng.normal(0, 60, ground.shape), 0, 255).astype(np.uint8)
            smooth = np.asarray(Image.fromarray(coarse).resize((128, 128), Image.Resampling.BICUBIC), dtype=np.float64)
            noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"class{number:03d}" / f"{image:03d}.jpg", quality=90)


def trained(place: Path, classes: int, *, tiny: bool) -> Path:
    """A run of one epoch on the first four classes."""
    from polyanchor.config.loading import load_config
    from polyanchor.training.train import train

    settings = {
        "data.source": f"folder:{place / 'photos'}",
        "data.train_share": str((TRAINING + 0.5) / classes),
        "data.val_share": "0",
        "images.size": "32",
        "images.resize": "36",
        "model.backbone": "test_resnet",
        "model.weights": "",
        "model.embedding_dim": "8" if tiny else "64",
        "run.epochs": "1",
        "run.loggers": '["csv"]',
    }
    train(load_config(settings=[f"{key}={value}" for key, value in settings.items()]), place / "run")
    return place / "run"


def browser() -> str | None:
    """Chromium, where it can be driven."""
    if importlib.util.find_spec("selenium") is None or shutil.which("chromedriver") is None:
        return None
    return next(filter(None, map(shutil.which, PLACES)), None)


@contextmanager
def chromium(*, width: int = 1200, height: int = 900, **preferences: str) -> Iterator[Any]:
    """A fresh headless browser of one's own that asks nothing of the network by itself.

    Args:
        width: of the page in pixels; a phone below 600.
        height: likewise.
        **preferences: media features, as ``prefers_color_scheme="dark"``.
    """
    from selenium import webdriver

    options, program = webdriver.ChromeOptions(), browser()
    assert program is not None
    options.binary_location = program
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = "headless no-sandbox disable-gpu enable-unsafe-swiftshader no-first-run disable-background-networking"
        words += f" disable-component-update disable-sync disable-dev-shm-usage user-data-dir={profile}"
        for word in words.split():
            options.add_argument(f"--{word}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            features = [{"name": name.replace("_", "-"), "value": value} for name, value in preferences.items()]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            yield driver
        finally:
            driver.quit()


def wait_until_drawn(driver: Any, seconds: float = 120) -> float:
    """Seconds from the start of the navigation until everything was drawn, as the page itself counts them."""
    from selenium.webdriver.support.ui import WebDriverWait

    ready = "return document.documentElement.dataset.ready"
    return float(WebDriverWait(driver, seconds, 0.05).until(lambda _: driver.execute_script(ready))) / 1000


def opened(page: Path) -> float:
    """Seconds to open a page in a fresh browser."""
    with chromium() as driver:
        driver.get(page.resolve().as_uri())
        return wait_until_drawn(driver)


if __name__ == "__main__":
    main(QUESTION, rows, __doc__)
