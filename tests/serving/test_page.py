"""The page in a real browser, as people with a mouse, a keyboard, a phone and a screen reader use it."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.serving.conftest import form, picture, pixels_of, png

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
IMAGE = {"name": "street.png", "mimeType": "image/png", "buffer": png(picture(80, 110))}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, served):
    """Open the page; whatever it logs, throws or asks of others fails the test."""
    contexts, told = [], []

    def open_page(width=1280, height=800, path="/", port=served.port, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        address = f"http://127.0.0.1:{port}"
        page.on(
            "request", lambda request: told.extend([request.url] * (not request.url.startswith((address, "blob:"))))
        )
        page.goto(address + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in told if "the server responded with a status of 4" not in text] == []


def choose(page, file=IMAGE):
    page.set_input_files("#choose", file)
    page.wait_for_selector("#legend li")


def drawn(page):
    """The pixels of the mask, uint8 `(H, W, 4)`."""
    code = "c => [c.width, c.height, [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]"
    width, height, values = page.locator("#mask").evaluate(code)
    return np.array(values, np.uint8).reshape(height, width, 4)


def test_mask_and_shares_are_those_of_the_model(visit, model):
    page = visit()
    choose(page)
    prediction = model.predict(picture(80, 110))
    assert (drawn(page)[..., :3] == prediction.color()).all()
    wanted = [f"{name} {100 * share:.1f} %" for name, share in prediction.shares.items() if share >= 0.001]
    seen = [" ".join(item.split()) for item in page.locator("#legend li").all_inner_texts()]
    assert seen[: len(wanted)] == wanted
    assert page.inner_text("#status").startswith("110 \u00d7 80 pixels in ")


def test_classes_can_be_hidden(visit, model):
    page = visit()
    choose(page)
    label = model.predict(picture(80, 110)).train_ids
    first = int(np.bincount(label.ravel()).argmax())
    page.locator("#legend label").first.click()
    assert ((drawn(page)[..., 3] == 0) == (label == first)).all()
    page.click("#none")
    assert not drawn(page)[..., 3].any()
    page.click("#all")
    assert (drawn(page)[..., 3] == 255).all()


@pytest.mark.slow
def test_opacity_and_original_beside(visit):
    page = visit()
    choose(page)
    page.locator("#opacity").fill("20")
    assert page.locator("#mask").evaluate("c => getComputedStyle(c).opacity") == "0.2"
    assert not page.is_visible("#original")
    page.locator("#side").focus()
    page.keyboard.press("Space")
    stage, original = page.locator("#stage").bounding_box(), page.locator("#original img").bounding_box()
    assert original["x"] >= stage["x"] + stage["width"]
    assert abs(original["y"] - stage["y"]) < 1


def test_class_under_the_pointer_is_named(visit, model):
    page = visit()
    choose(page)
    prediction = model.predict(picture(80, 110))
    box = page.locator("#stage").bounding_box()
    for row, column in ((5, 5), (40, 55), (70, 100)):
        x, y = box["x"] + (column + 0.5) / 110 * box["width"], box["y"] + (row + 0.5) / 80 * box["height"]
        page.mouse.move(x, y)
        name = model.label_set.names[prediction.train_ids[row, column]]
        assert page.inner_text("#tip") == name
        assert page.locator("#legend .here").inner_text().startswith(name)
    page.mouse.move(0, 0)
    assert not page.is_visible("#tip")


def test_keyboard_alone_suffices(visit):
    page = visit()
    choose(page)
    page.locator("#stage").focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowDown")
    spoken = page.inner_text("#spoken")
    assert spoken.endswith(", column 60 %, row 52 %")
    assert spoken.startswith(page.inner_text("#tip"))
    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.id"))
    assert order[:4] == ["opacity", "side", "all", "none"]
    page.keyboard.press("Space")
    assert not page.locator("#legend input").nth(3).is_checked()


def test_screen_reader_finds_everything_by_name(visit):
    page = visit()
    choose(page)
    for role, name in (
        ("slider", "Opacity"),
        ("switch", "Side by side"),
        ("group", "Classes"),
        ("group", "Download"),
        ("button", "Label ids"),
        ("application", "Segmented picture"),
        ("heading", "deeplabv3"),
    ):
        assert page.get_by_role(role, name=name).count() == 1, name
    assert page.get_by_role("checkbox").count() == page.locator("#legend li").count()
    assert page.evaluate("[...document.images].every(image => image.hasAttribute('alt'))")


@pytest.mark.slow
def test_downloads(visit, model, served):
    page = visit()
    choose(page)
    prediction = model.predict(picture(80, 110))
    for button, wanted, tolerance in (
        ("ids", prediction.label_ids, 0),
        ("color", prediction.color(), 0),
        ("overlay", prediction.overlay(0.55), 2),
    ):
        with page.expect_download() as download:
            page.click(f"#save-{button}")
        content = download.value.path().read_bytes()
        assert download.value.suggested_filename == f"street_{'labelIds' if button == 'ids' else button}.png"
        seen = pixels_of(content)[..., :3] if button != "ids" else pixels_of(content)
        assert np.abs(seen.astype(int) - wanted).max() <= tolerance
        if button == "ids":
            assert content == served.segment(IMAGE["buffer"]).body


def transfer(page, kind, target):
    """A drop or a paste of the image."""
    code = """async ([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "street.png", {type: "image/png"}));
        const event = kind === "drop" ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
            : new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
        document.body.dispatchEvent(event);
    }"""
    page.evaluate(code, [kind, list(IMAGE["buffer"])])
    page.wait_for_selector(target)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_picture_can_be(visit, kind):
    transfer(visit(), kind, "#legend li")


def test_phone(visit):
    page = visit(390, 844, is_mobile=True, has_touch=True, color_scheme="dark")
    assert page.get_by_text("Take a photo").is_visible()
    assert page.locator("[capture]").get_attribute("capture") == "environment"
    choose(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#stage").tap(position={"x": 50, "y": 50})
    assert page.inner_text("#tip")
    small = (
        "[...document.querySelectorAll('button, .button, label')].filter(e => e.offsetHeight && e.offsetHeight < 24)"
    )
    assert page.evaluate(f"{small}.length") == 0


def test_mistake_is_told_and_the_last_picture_stays(visit):
    page = visit()
    choose(page)
    before = drawn(page)
    for file, message in (
        (
            {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture at all"},
            "The image cannot be read: it holds",
        ),
        ({**IMAGE, "buffer": png(picture(120, 100))}, "The image cannot be read: it has 12,000 pixels"),
        ({**IMAGE, "buffer": bytes(200_001)}, "The body is too large; at most 200,000 bytes are read"),
    ):
        page.set_input_files("#choose", file)
        page.locator("#error", has_text=message).wait_for()
        page.locator("body:not(.busy)").wait_for()
        assert (drawn(page) == before).all()
    choose(page)
    page.locator("#error").wait_for(state="hidden")


@pytest.mark.slow
def test_name_of_a_file_is_only_text(visit):
    page = visit()
    choose(page, {**IMAGE, "name": "<img src=x onerror=alert(1)>.png"})
    with page.expect_download() as download:
        page.click("#save-ids")
    assert "alert(1)" in download.value.suggested_filename
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.slow
def test_kinds_that_browsers_do_not_show(visit, model):
    page = visit()
    content = io.BytesIO()
    Image.fromarray(picture(80, 110)).save(content, "TIFF")
    choose(page, {"name": "street.tif", "mimeType": "image/tiff", "buffer": content.getvalue()})
    assert page.locator("#photo").evaluate("i => [i.naturalWidth, i.naturalHeight]") == [110, 80]
    assert (drawn(page)[..., :3] == model.predict(picture(80, 110)).color()).all()


@pytest.mark.slow
def test_token_is_asked_for(visit, serve):
    with serve(token="0123456789abcdef") as served:
        page = visit(port=served.port)
        page.set_input_files("#choose", IMAGE)
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.locator("#token").wait_for()
        page.fill("#token", "0123456789abcdef")
        page.keyboard.press("Enter")
        page.wait_for_selector("#legend li")


@pytest.mark.slow
def test_interface_is_shown(visit):
    page = visit(path="/docs")
    page.wait_for_selector("dl")
    assert page.locator("h2").all_inner_texts() == ["POST /segment", "GET /health", "GET /metrics", "GET /classes"]


@pytest.mark.slow
def test_policy_forbids_foreign_scripts(browser, served):
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{served.port}/")
    told = []
    page.on("console", lambda message: told.append(message.text))
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert page.evaluate("window.ran") is None
    assert "Content Security Policy" in told[0]
    page.close()


@pytest.mark.slow
def test_form_of_another_page_is_not_served(browser, served):
    """A page elsewhere makes the browser send what needs no permission, and learns nothing."""
    context = browser.new_context()
    context.route("http://elsewhere.test/", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    page = context.new_page()
    page.goto("http://elsewhere.test/")
    body, kind = form(("image", "street.png", IMAGE["buffer"]))
    before = served.service.metrics.batches.collect()[0].samples[-2].value
    code = """([url, body, type]) =>
        fetch(url, {method: "POST", mode: "no-cors", body: new Blob([new Uint8Array(body)], {type})})
            .then((answer) => answer.type, () => "refused")"""
    assert page.evaluate(code, [f"http://127.0.0.1:{served.port}/segment", list(body), kind]) in ("opaque", "refused")
    assert served.service.metrics.batches.collect()[0].samples[-2].value == before
    context.close()
