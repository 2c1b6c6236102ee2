"""The page where the service wants a key."""

import hashlib
import io

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from catsdogs_lib.data.synthetic.render import draw

pytestmark = pytest.mark.slow
KEY = "schlüssel-鍵-1"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
REFUSED = "the server responded with a status of 401"  # Chromium's own line


@pytest.fixture(scope="module")
def locked(start, request):
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with start(request.config.rootpath / "models/reference", CATSDOGS_KEY_SHA256=digest) as server:
        yield server


def choose(page, kind="dog"):
    stream = io.BytesIO()
    draw(kind, 36, (320, 240)).save(stream, "JPEG", quality=90)
    with page.expect_file_chooser() as chooser:
        page.locator("#choose").click()
    chooser.value.set_files({"name": f"{kind}.jpg", "mimeType": "image/jpeg", "buffer": stream.getvalue()})


def field(page):
    return page.get_by_label("Key", exact=True)


def kept(page):
    """What the browser keeps: for the tab, beyond it, and as cookies."""
    return page.evaluate("[{...sessionStorage}, {...localStorage}, document.cookie]")


def test_the_key_is_asked_for_once_a_tab_and_the_photo_sent_again(visit, locked):
    page = visit(locked.url)
    page.watched.expected.append(REFUSED)
    expect(field(page)).to_be_hidden()
    choose(page)
    expect(page.locator("#verdict")).to_have_text("A key is needed")
    expect(page.get_by_role("alert")).to_contain_text("A key is needed. This service answers only to its key.")
    expect(field(page)).to_be_focused()
    assert field(page).get_attribute("type") == "password"

    page.keyboard.insert_text("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#sentence")).to_contain_text("That is not the key of this service.")
    expect(field(page)).to_have_value("")
    assert kept(page) == [{}, {}, ""]

    field(page).fill(f" {KEY} ")
    page.get_by_role("button", name="Send again").click()
    expect(page.locator("#verdict")).to_have_text("dog")
    expect(field(page)).to_be_hidden()
    expect(page.locator("#choose")).to_be_focused()
    assert kept(page) == [{"x-api-key": KEY}, {}, ""]

    page.reload()
    choose(page)
    expect(page.locator("#verdict")).to_have_text("dog")
    other = page.context.new_page()
    other.goto(locked.url)
    assert kept(other) == [{}, {}, ""]
    with_key = [r for r in page.watched.requests if "x-api-key" in r.headers]
    assert {(r.method, r.url) for r in with_key} == {("POST", f"{locked.url}predict")}
    assert not [r.url for r in page.watched.requests if KEY in r.url]


def test_a_pasted_key_is_no_missing_photo(visit, locked):
    page = visit(locked.url)
    page.watched.expected.append(REFUSED)
    choose(page)
    expect(field(page)).to_be_focused()
    page.evaluate(f"navigator.clipboard.writeText({KEY!r})")
    page.keyboard.press("Control+V")
    expect(field(page)).to_have_value(KEY)
    expect(page.locator("#notice")).to_have_text("")
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_have_text("dog")


def test_without_a_store_the_key_lasts_as_long_as_the_page(visit, locked):
    page = visit("about:blank")
    page.watched.expected.append(REFUSED)
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', { get() { throw new Error('off') } })")
    page.goto(locked.url)
    choose(page)
    field(page).fill(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#verdict")).to_have_text("dog")
    choose(page, "cat")
    expect(page.locator("#verdict")).to_have_text("cat")


@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_fault_is_found_where_the_key_is_asked_for(visit, locked, scheme, device):
    page = visit(locked.url, color_scheme=scheme, **device)
    page.watched.expected.append(REFUSED)
    choose(page)
    expect(field(page)).to_be_visible()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 15
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
