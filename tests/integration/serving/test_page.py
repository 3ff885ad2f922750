"""The page in a real browser, on a real server: drawn, dropped and chosen digits are read right."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from components.image_example_gen.sources import idx
from serving.client import Client
from tests.integration.serving.model_server import Served
from trainer import features

pytest_plugins = ("tests.integration.serving.mnist_server",)

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine's PATH")

# Stroke by stroke, in pixels of the drawing area, which is 280 wide.
NOTHING = "\N{EN DASH}"
SEVEN = [[(70, 60), (210, 60), (130, 230)]]
ONE = [[(140, 50), (140, 230)]]

DROP = """
([content, name, type]) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  const event = new DragEvent("drop", { dataTransfer: data, bubbles: true });
  document.querySelector("#pad").dispatchEvent(event);
}
"""
FIRST_IS_LATE = """
() => {
  const toBlob = HTMLCanvasElement.prototype.toBlob;
  window.late = true;
  HTMLCanvasElement.prototype.toBlob = function (callback) {
    HTMLCanvasElement.prototype.toBlob = toBlob;
    toBlob.call(this, (file) => setTimeout(() => { callback(file); window.late = false; }, 300));
  };
}
"""
INPUT = """
() => {
  const canvas = document.querySelector("#input");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [...data].filter((_, at) => at % 4 === 0);
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=30_000)  # of a machine that does other things too
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: object, served: Served) -> Iterator[object]:
    page = browser.new_page(viewport={"width": 1000, "height": 900})  # type: ignore[attr-defined]
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"http://127.0.0.1:{served.server.rest_port}/")
    page.wait_for_selector("html[data-ready]", state="attached")
    yield page
    page.close()
    assert errors == []


def draw(page: object, strokes: list[list[tuple[int, int]]]) -> None:
    box = page.locator("#pad").bounding_box()  # type: ignore[attr-defined]
    scale = box["width"] / 280
    mouse = page.mouse  # type: ignore[attr-defined]
    for (x, y), *rest in strokes:
        mouse.move(box["x"] + x * scale, box["y"] + y * scale)
        mouse.down()
        for x, y in rest:
            mouse.move(box["x"] + x * scale, box["y"] + y * scale, steps=12)
        mouse.up()


def expect_digit(page: object, wanted: int) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#digit")).to_have_text(str(wanted))  # type: ignore[attr-defined]
    best = page.locator("#bars li.best")  # type: ignore[attr-defined]
    assert best.locator("span").first.text_content() == str(wanted)


@pytest.mark.parametrize(("strokes", "wanted"), [(SEVEN, 7), (ONE, 1)], ids=["seven", "one"])
def test_a_drawn_digit_is_read(page: object, served: Served, strokes: list, wanted: int) -> None:
    draw(page, strokes)
    expect_digit(page, wanted)
    shares = [
        float(text.removesuffix("%"))
        for text in page.locator("#bars .share").all_text_contents()  # type: ignore[attr-defined]
    ]
    assert len(shares) == 10
    assert max(shares) == shares[wanted]
    assert sum(shares) == pytest.approx(100, abs=0.6)
    facts = page.locator("#facts").text_content()  # type: ignore[attr-defined]
    assert f"Version {served.version}" in facts
    assert facts.endswith("ms.")
    overflowing = (
        "[...document.querySelectorAll('#bars li')].some((li) => li.scrollHeight > li.clientHeight)"
    )
    assert not page.evaluate(overflowing)  # type: ignore[attr-defined]


def test_clear_starts_anew(page: object) -> None:
    from playwright.sync_api import expect

    draw(page, SEVEN)
    expect_digit(page, 7)
    page.get_by_role("button", name="Clear").click()  # type: ignore[attr-defined]
    expect(page.locator("#digit")).to_have_text(NOTHING)  # type: ignore[attr-defined]
    assert not any(page.evaluate(INPUT))  # type: ignore[attr-defined]
    draw(page, ONE)
    expect_digit(page, 1)


def test_a_drawing_that_is_encoded_late_answers_nothing_newer(page: object) -> None:
    from playwright.sync_api import expect

    page.evaluate(FIRST_IS_LATE)  # type: ignore[attr-defined]
    draw(page, SEVEN)
    page.get_by_role("button", name="Clear").click()  # type: ignore[attr-defined]
    page.wait_for_function("window.late === false")  # type: ignore[attr-defined]
    page.wait_for_timeout(500)  # type: ignore[attr-defined]
    expect(page.locator("#digit")).to_have_text(NOTHING)  # type: ignore[attr-defined]
    draw(page, ONE)
    expect_digit(page, 1)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_dropped_picture_is_read_by_the_models_own_graph(page: object, served: Served, form: str) -> None:
    picture = Image.new("RGB", (640, 480), (236, 233, 225))
    ImageDraw.Draw(picture).line([(250, 90), (420, 95), (320, 380)], fill=(30, 40, 120), width=18)
    content = io.BytesIO()
    picture.save(content, form)
    name = f"seven.{form.lower()}"
    arguments = [base64.b64encode(content.getvalue()).decode(), name, f"image/{form.lower()}"]
    page.evaluate(DROP, arguments)  # type: ignore[attr-defined]
    expect_digit(page, 7)
    with Client(port=served.server.grpc_port) as client:
        file = np.array([content.getvalue()], object)
        said = client.predict({features.IMAGE_BYTES: file}, features.SIGNATURE_DECODE).outputs
    assert page.evaluate(INPUT) == said[features.IMAGE].ravel().tolist()  # type: ignore[attr-defined]


def test_a_file_that_is_no_picture_is_refused(page: object) -> None:
    from playwright.sync_api import expect

    page.evaluate(DROP, [base64.b64encode(b"no picture").decode(), "notes.txt", "text/plain"])  # type: ignore[attr-defined]
    expect(page.get_by_role("alert")).to_contain_text("notes.txt is no picture")  # type: ignore[attr-defined]


def test_samples_are_the_models_own_and_answer_when_chosen(page: object, mnist_dir: Path) -> None:
    samples = page.locator("#sample-list button")  # type: ignore[attr-defined]
    assert samples.count() == 30
    # The fixture's validation split is its training split.
    images = next(idx.read_images(mnist_dir / "train-images-idx3-ubyte", 100))
    labels = next(idx.read_labels(mnist_dir / "train-labels-idx1-ubyte", 100))
    for wanted in (0, 4):
        name = f"Sample {3 * wanted + 1}: {wanted}"
        page.get_by_role("button", name=name, exact=True).click()  # type: ignore[attr-defined]
        expect_digit(page, wanted)
        shown = page.evaluate(INPUT)  # type: ignore[attr-defined]
        assert shown in images[labels == wanted].reshape(-1, 28 * 28).tolist()


def test_the_keyboard_suffices(page: object) -> None:
    keyboard = page.keyboard  # type: ignore[attr-defined]
    keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "pad"  # type: ignore[attr-defined]
    keyboard.press("Space")
    for _ in range(20):
        keyboard.press("ArrowDown")
    expect_digit(page, 1)
    keyboard.press("Delete")
    assert page.locator("#digit").text_content() == NOTHING  # type: ignore[attr-defined]
    reached = set()
    for _ in range(4):
        keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.ariaLabel"))  # type: ignore[attr-defined]
    assert {"clear", "file"} <= reached
    assert any("Sample 1" in name for name in reached)


def test_a_server_that_goes_away_is_said(page: object) -> None:
    from playwright.sync_api import expect

    page.route("**/*:predict", lambda route: route.abort())  # type: ignore[attr-defined]
    draw(page, ONE)
    expect(page.get_by_role("alert")).to_contain_text("does not answer")  # type: ignore[attr-defined]


def test_a_new_version_is_found_when_the_old_one_has_gone(page: object, served: Served) -> None:
    asked = []

    def gone(route: object) -> None:
        asked.append(route.request.url)  # type: ignore[attr-defined]
        if len(asked) > 1:
            route.continue_()  # type: ignore[attr-defined]
        else:
            body = json.dumps({"error": "Servable not found for request: Specific(mnist, 1)"})
            route.fulfill(status=404, body=body, content_type="application/json")  # type: ignore[attr-defined]

    page.route("**/*:predict", gone)  # type: ignore[attr-defined]
    draw(page, SEVEN)
    expect_digit(page, 7)
    # Once in vain; then what the network gets, and what it says.
    assert len(asked) == 3
    assert str(served.version) in asked[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: object, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[attr-defined]
    draw(page, SEVEN)
    expect_digit(page, 7)
    for selector in ("h1", "#server", "#pad-help", "#digit", "#bars li.best .share", "button"):
        assert contrast(page, selector) >= 4.5, selector  # WCAG's AA
    grounds = {"light": 200, "dark": 60}
    ground = colour(page, "body", "background-color").mean()
    assert ground > grounds["light"] if scheme == "light" else ground < grounds["dark"]


def colour(page: object, selector: str, name: str) -> np.ndarray:
    script = (
        "([selector, name]) => getComputedStyle(document.querySelector(selector)).getPropertyValue(name)"
    )
    text = page.evaluate(script, [selector, name])  # type: ignore[attr-defined]
    return np.array([float(part) for part in text[text.index("(") + 1 : -1].split(",")][:3])


def contrast(page: object, selector: str) -> float:
    """WCAG's contrast ratio of an element's text to the card, or the page, that it stands on."""

    def luminance(rgb: np.ndarray) -> float:
        share = rgb / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    ground = "body" if selector in ("h1", "#server", "button") else "main section"
    levels = sorted(
        luminance(c) for c in (colour(page, selector, "color"), colour(page, ground, "background-color"))
    )
    return (levels[1] + 0.05) / (levels[0] + 0.05)
