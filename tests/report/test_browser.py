"""The page in a real browser: hover, zoom, filter, keyboard, both colour schemes, a phone; no network, no errors."""

import json
import time

import pytest

from benchmarks.report_page import browser, chromium, wait_until_drawn
from tests.report.conftest import EVIL

if browser() is None:
    pytest.skip("needs Chromium, chromedriver and selenium", allow_module_level=True)

from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.slow
SHOWN = "return state.shown.map((i) => [M.layers[kinds[i]].kind, D.classes[M.classes[i]].name])"
RANGE = "return document.getElementById('points')._fullLayout.xaxis.range"


@pytest.fixture(scope="module")
def opened_browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(opened_browser, written):
    def opened(width=1200, height=900, scheme="light"):
        driver = opened_browser
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.get(written.path.as_uri())
        wait_until_drawn(driver)
        return driver

    return opened


def until(driver, condition):
    return WebDriverWait(driver, 30, 0.05).until(lambda _: condition())


def spot(driver, number):
    """Where the number-th drawn point is on the screen."""
    driver.execute_script("document.getElementById('points').scrollIntoView({block: 'center'})")
    return driver.execute_script(
        "const box = document.getElementById('points').getBoundingClientRect();"
        "const [x, y] = place(state.shown[arguments[0]]);"
        "return [Math.round(box.x + x), Math.round(box.y + y)]",
        number,
    )


def move(driver, x, y):
    ActionChains(driver, duration=0).w3c_actions.pointer_action.move_to_location(x, y)
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})


def find(driver, selector):
    return driver.find_element(By.CSS_SELECTOR, selector)


def test_nothing_is_asked_of_a_network_and_nothing_fails(page, written):
    driver = page()
    driver.get_log("performance"), driver.get_log("browser")
    driver.get(written.path.as_uri())
    wait_until_drawn(driver)
    move(driver, *spot(driver, 0))
    time.sleep(0.3)
    asked = [
        message["params"]["request"]["url"]
        for message in (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert written.path.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:file:", "blob:null"))] == []
    assert [url for url in asked if url.startswith("file:") and url != written.path.as_uri()] == []
    said = [entry for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert [entry for entry in said if entry["source"] != "rendering"] == []  # a graphics driver's hints about speed
    assert driver.execute_script("return window.hacked") is None
    assert not find(driver, "#trouble").is_displayed()


def test_an_injected_script_does_not_run_even_where_a_text_were_not_escaped(page):
    driver = page()
    driver.execute_script(
        f"document.getElementById('status').innerHTML = {json.dumps(EVIL)} + '<img src=x onerror=hacked=1>'"
    )
    driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 2'; document.body.append(s)"
    )
    time.sleep(0.2)
    assert driver.execute_script("return window.hacked") is None
    assert any("Content Security Policy" in entry["message"] for entry in driver.get_log("browser"))


def test_hover_shows_the_picture_of_that_item(page, opened):
    driver = page()
    names = list(opened.queries.embeddings.names)
    for number in 3, 12:
        move(driver, *spot(driver, number))
        until(driver, lambda: find(driver, "#tip").is_displayed())
        shown = int(find(driver, "#tip").get_attribute("data-point"))  # another one may lie on top of it
        texts = [line.text for line in driver.find_elements(By.CSS_SELECTOR, "#tip p")]
        assert texts[1] == (names[shown] if shown < 16 else texts[1])
        move(driver, 5, 5)
        until(driver, lambda: not find(driver, "#tip").is_displayed())
    driver.execute_script("show(5)")
    pixel = """const [i, done] = arguments, thumb = document.querySelector('#tip .thumb'), image = new Image();
        image.onload = () => { const c = document.createElement('canvas').getContext('2d'), s = getComputedStyle(thumb);
          const scale = image.width / parseFloat(s.backgroundSize);
          const [x, y] = s.backgroundPosition.split(' ').map(parseFloat);
          c.drawImage(image, -x * scale, -y * scale, 112, 112, 0, 0, 1, 1);
          done([...c.getImageData(0, 0, 1, 1).data]); };
        image.src = getComputedStyle(thumb).backgroundImage.slice(5, -2);"""
    found = driver.execute_async_script(pixel, 5)
    true = opened.queries.items.inputs.read(5).resize((1, 1)).getpixel((0, 0))
    assert max(abs(a - b) for a, b in zip(found, true, strict=False)) < 40  # one pixel, drawn by two programs


def test_zoom_by_button_key_and_wheel(page):
    driver = page()
    width = lambda: driver.execute_script(RANGE)[1] - driver.execute_script(RANGE)[0]  # noqa: E731  (read by the waits below)
    first = width()
    find(driver, '[data-do="in"]').click()
    until(driver, lambda: abs(width() / first - 0.6) < 0.01)
    box = find(driver, "#points")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", box)
    box.send_keys("+")
    until(driver, lambda: abs(width() / first - 0.36) < 0.01)
    left = driver.execute_script(RANGE)[0]
    box.send_keys(Keys.ARROW_RIGHT)
    until(driver, lambda: driver.execute_script(RANGE)[0] > left)
    box.send_keys("0")
    until(driver, lambda: abs(width() / first - 1) < 0.01)
    at = driver.execute_script(
        "const b = arguments[0].getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]", box
    )
    wheel = {"type": "mouseWheel", "x": at[0], "y": at[1], "deltaX": 0, "deltaY": -240}
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", wheel)
    until(driver, lambda: width() < 0.95 * first)
    box.send_keys("0")
    until(driver, lambda: abs(width() / first - 1) < 0.01)
    driver.execute_script("document.activeElement.blur()")
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", wheel | {"deltaY": 240})
    time.sleep(0.4)
    assert abs(width() / first - 1) < 0.01  # the page is scrolled, not the map


def test_a_class_alone_by_keyboard_and_by_its_table(page):
    driver = page()
    everything = driver.execute_script(SHOWN)
    assert len(everything) == 16 + 4  # queries and proxies; training items are off
    field = find(driver, "#class")
    field.send_keys("e & f", Keys.ENTER)
    until(driver, lambda: len(driver.execute_script(SHOWN)) == 8)
    assert driver.execute_script(SHOWN) == [["query", "e & f"]] * 8
    drawn = driver.execute_script("return document.getElementById('points').data.map((trace) => trace.x.length)")
    assert sum(drawn) == 8
    assert "Shown: 8 queries · nDCG@8" in find(driver, "#status").text
    field.send_keys("no such", Keys.ENTER)
    until(driver, lambda: "No class is called no such" in find(driver, "#status").text)
    find(driver, "#chips button").send_keys(Keys.ENTER)
    until(driver, lambda: driver.execute_script(SHOWN) == everything)
    button = find(driver, "#classes button[data-classes]")
    driver.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    until(driver, lambda: {name for _, name in driver.execute_script(SHOWN)} == {button.text})
    find(driver, "#centres button[data-classes]").send_keys(Keys.ENTER)  # a class that trained: its items come on
    until(driver, lambda: {kind for kind, _ in driver.execute_script(SHOWN)} == {"training", "proxy"})


def test_layers_projection_and_colour(page):
    driver = page()
    driver.execute_script("document.querySelector('[data-kind=training]').click()")
    until(driver, lambda: len(driver.execute_script(SHOWN)) == 36)
    before = driver.execute_script("return [...document.getElementById('points').data[0].x]")
    find(driver, "#view").send_keys("principal")
    until(driver, lambda: "% of the variance" in find(driver, "#map-view").text)
    assert driver.execute_script("return [...document.getElementById('points').data[0].x]") != before
    find(driver, "#colour").send_keys("by n")
    until(
        driver,
        lambda: driver.execute_script("return document.getElementById('points').data[0].marker.color[0]").startswith(
            "hsl"
        ),
    )
    assert "from 0, red" in find(driver, "#status").text


def test_all_by_keyboard(page):
    """From the top: the link past the head, then every control in turn, with a ring to be seen around it."""
    driver = page()
    ActionChains(driver).send_keys(Keys.TAB).perform()
    assert driver.switch_to.active_element.text == "Skip to the content"
    reached = []
    for _ in range(60):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        active = driver.switch_to.active_element
        reached.append(active.get_attribute("id") or active.get_attribute("data-do") or active.tag_name)
        if reached[-1] == "drag":
            break
        if reached[-1] == "points":
            ring = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
            assert ring == "solid"
            ActionChains(driver).send_keys("n").perform()
            until(driver, lambda: find(driver, "#tip").is_displayed())
            first = find(driver, "#status").text
            ActionChains(driver).send_keys("n").perform()
            until(driver, lambda first=first: find(driver, "#status").text != first)
            ActionChains(driver).send_keys("p").perform()
            until(driver, lambda first=first: find(driver, "#status").text == first)
            ActionChains(driver).send_keys(Keys.ESCAPE).perform()
            until(driver, lambda: not find(driver, "#tip").is_displayed())
    order = ["class", "view", "colour", "points", "in", "out", "reset", "previous", "next", "drag"]
    assert [name for name in reached if name in order] == order


def luminance(colour):
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(
        w * (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4)
        for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(page, scheme):
    driver = page(scheme=scheme)
    paper = luminance(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert paper > 0.9 if scheme == "light" else paper < 0.05
    texts = [
        "body",
        ".soft",
        ".lead",
        ".facts dt",
        "#classes .link",
        ".key.right",
        ".key.wrong",
        "nav a",
        ".note, .tile .range",
    ]
    for selector in texts:
        ink = luminance(
            driver.execute_script("return getComputedStyle(document.querySelector(arguments[0])).color", selector)
        )
        low, high = sorted((ink, paper))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector
    figure = driver.execute_script("return getComputedStyle(document.querySelector('#curve-0 .xtick text')).fill")
    low, high = sorted((luminance(figure), paper))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_figures_follow_a_change_of_scheme(page):
    driver = page(scheme="light")
    colour = "return document.querySelector('#curve-0 .xtick text').style.fill"
    before = driver.execute_script(colour)
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    until(driver, lambda: driver.execute_script(colour) != before)


def test_on_a_phone(page):
    driver = page(width=390, height=844)
    assert driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    beyond = """return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, #points, pre')
        && e.getBoundingClientRect().right > 391).length"""
    assert driver.execute_script(beyond) == 0
    assert find(driver, '[data-do="drag"]').get_attribute("aria-pressed") == "false"  # a finger scrolls the page
    small = (
        "return [...document.querySelectorAll('.buttons button')].every((b) => b.getBoundingClientRect().height >= 36)"
    )
    assert driver.execute_script(small)
    x, y = spot(driver, 2)
    for kind in "touchStart", "touchEnd":
        points = [{"x": x, "y": y}] if kind == "touchStart" else []
        driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    until(driver, lambda: find(driver, "#tip").is_displayed())
