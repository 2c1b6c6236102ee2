"""The page as a person meets it: a real Chromium, the real server, drawn photos."""

import base64
import contextlib
import io
import json
import re

import numpy as np
import onnx
import pytest
from axe_playwright_python.sync_playwright import Axe
from onnx import TensorProto, helper
from PIL import Image
from playwright.sync_api import Error, expect

from catsdogs_lib.common import files
from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier

pytestmark = pytest.mark.slow
OUTPUTS = ("logits", "probabilities")
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
REFUSED = "Failed to load resource: the server responded with a status of 4"  # Chromium's own line for any refusal


def photo(image, name="photo.jpg", **options):
    stream, kind = io.BytesIO(), "png" if name.endswith(".png") else "jpeg"
    image.save(stream, kind, **options)
    return {"name": name, "mimeType": f"image/{kind}", "buffer": stream.getvalue()}


DOG = photo(draw("dog", 36, (640, 480)), "dog.jpg", quality=90)
CAT = photo(draw("cat", 15, (640, 480)), "cat.jpg", quality=90)
TEXT = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"Not a photo at all."}


@pytest.fixture(scope="module")
def classifier(familiar_bundle):
    return Classifier(familiar_bundle)


def drop(page, *given):
    """Drop files on the page as a hand does: over it, then let go."""
    page.evaluate(
        """given => {
            const dataTransfer = new DataTransfer();
            for (const { name, mimeType, data } of given) {
                const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
                dataTransfer.items.add(new File([bytes], name, { type: mimeType }));
            }
            const target = document.getElementById("card");
            for (const type of ["dragenter", "dragover", "drop"])
                target.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [{**one, "buffer": None, "data": base64.b64encode(one["buffer"]).decode()} for one in given],
    )


def choose(page, given):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile("Choose")).click()
    chooser.value.set_files(given)


def bars(page):
    """Name -> probability, as a screen reader gets them."""
    expect(page.locator("#card")).to_have_attribute("data-state", "answer")
    return {
        page.locator(f"#{meter.get_attribute('aria-labelledby')}").text_content(): float(
            meter.get_attribute("aria-valuenow")
        )
        for meter in page.locator("[role=meter]").all()
    }


def sentence_of_error(page):
    expect(page.locator("#card")).to_have_attribute("data-state", "error")
    text = page.locator("#sentence").inner_text()
    assert text in page.get_by_role("alert").inner_text()
    return text


def test_the_page_is_named_after_the_classes(visit):
    page = visit()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cat or dog?")
    expect(page).to_have_title("Cat or dog?")
    expect(page.locator("#limits")).to_contain_text("knows only cat and dog")


def test_a_dropped_photo_is_answered_with_a_bar_for_each_class(visit, classifier):
    page = visit()
    drop(page, DOG)
    expected = classifier.predict(DOG["buffer"])
    assert bars(page) == pytest.approx(expected.probabilities, abs=1e-3)
    expect(page.locator("#verdict")).to_have_text(expected.prediction)
    expect(page.locator("#badge")).to_have_text("Confident")
    expect(page.locator("#version")).to_have_text(classifier.bundle.version)
    expect(page.locator("#latency")).to_have_text(re.compile(r"^\d+ ms$"))
    expect(page.locator("#said")).to_have_text(re.compile(r"^Dog, (> )?\d\d\.\d%\. Confident\.$"))
    width = page.locator(".best .bar i").evaluate("e => e.clientWidth / e.parentElement.clientWidth")
    assert width == pytest.approx(expected.confidence, abs=0.02)


def test_the_photo_is_shown(visit):
    page = visit()
    drop(page, DOG)
    bars(page)
    expect(page.get_by_role("img", name="Your photo dog.jpg")).to_be_visible()
    assert page.locator("#preview").evaluate("e => e.naturalWidth") == 640


def test_a_small_photo_is_sent_as_it_is(visit, server):
    page = visit()
    drop(page, DOG)
    bars(page)
    assert server.photo_bytes() == len(DOG["buffer"])


def test_a_pasted_photo_is_answered(visit, classifier):
    page = visit()
    png = photo(draw("cat", 15, (320, 240)), "image.png")
    page.evaluate(
        """async data => {
            const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
            const blob = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode(png["buffer"]).decode(),
    )
    page.keyboard.press("Control+V")
    assert bars(page) == pytest.approx(classifier.predict(png["buffer"]).probabilities, abs=1e-3)


def test_pasted_text_is_met_with_a_sentence(visit):
    page = visit()
    page.evaluate("navigator.clipboard.writeText('some words')")
    page.keyboard.press("Control+V")
    expect(page.locator("#notice")).to_have_text("There is no photo in the clipboard. Copy one and paste again.")
    expect(page.locator("#card")).to_have_attribute("data-state", "empty")


def test_the_keyboard_alone_chooses_a_photo(visit):
    page = visit()
    expect(page).to_have_title("Cat or dog?")
    page.keyboard.press("Tab")
    button = page.get_by_role("button", name="Choose a photo")
    expect(button).to_be_focused()
    assert button.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    chosen = []

    def note(chooser):
        chosen.append(chooser)

    page.on("filechooser", note)
    for _ in range(10):  # on a busy machine Chromium may drop a key while it starts to listen for the chooser
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
        if chosen:
            break
    chosen[0].set_files(CAT)
    assert max(bars(page), key=bars(page).get) == "cat"
    expect(page.get_by_role("button", name="Choose another photo")).to_be_focused()


def test_the_same_photo_can_be_chosen_again(visit):
    page = visit()
    choose(page, DOG)
    bars(page)
    assert page.locator("#files").input_value() == ""  # or the browser would see no change


def test_a_phone_offers_its_camera_and_needs_no_scrolling_aside(visit):
    page = visit(**PHONE)
    expect(page.get_by_role("button", name="Choose a photo")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").tap()
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(DOG)
    bars(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_text_file_is_refused_with_the_services_sentence(visit):
    page = visit()
    page.watched.expected.append(REFUSED)
    with page.expect_response("**/predict") as refusal:
        drop(page, TEXT)
    detail = refusal.value.json()["detail"]
    assert sentence_of_error(page).rstrip(".").lower() == detail.rstrip(".").lower()
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    drop(page, DOG)
    bars(page)
    expect(page.locator("#sentence")).to_be_hidden()
    expect(page.get_by_role("alert")).to_have_text("")


def test_a_large_photo_is_scaled_down_before_it_is_sent(visit, server):
    page = visit()
    rng = np.random.default_rng(1)
    drawn = np.asarray(draw("dog", 36, (1000, 750)).resize((4000, 3000)), dtype=np.int16)
    noisy = np.clip(drawn + rng.integers(-70, 70, drawn.shape, dtype=np.int16), 0, 255).astype(np.uint8)
    large = photo(Image.fromarray(noisy), "large.jpg", quality=95)
    assert len(large["buffer"]) > 6e6
    choose(page, large)
    bars(page)
    assert server.photo_bytes() < 4.5e6
    assert page.locator("#preview").evaluate("e => [e.naturalWidth, e.naturalHeight]") == [1600, 1200]
    expect(page.locator("#bytes")).to_contain_text("sent as")


def test_a_large_photo_on_its_side_is_sent_upright(visit):
    page = visit()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    choose(page, photo(draw("dog", 36, (2000, 1500)), "side.jpg", exif=exif))
    bars(page)
    assert page.locator("#preview").evaluate("e => [e.naturalWidth, e.naturalHeight]") == [1200, 1600]


def test_a_large_file_that_the_browser_cannot_decode_is_not_sent(visit):
    page = visit()
    choose(page, {"name": "scan.tif", "mimeType": "image/tiff", "buffer": b"II*\0" + bytes(5_000_000)})
    assert "4.4 MB that can be sent" in sentence_of_error(page)
    assert not [request for request in page.watched.requests if request.method == "POST"]


def test_a_photo_that_only_the_service_can_read_is_answered_without_preview(visit):
    page = visit()
    stream = io.BytesIO()
    draw("dog", 36, (320, 240)).save(stream, "TIFF")
    choose(page, {"name": "scan.tif", "mimeType": "image/tiff", "buffer": stream.getvalue()})
    assert max(bars(page), key=bars(page).get) == "dog"
    expect(page.get_by_text("No preview")).to_be_visible()


def test_a_photo_that_only_the_browser_can_read_is_sent_as_jpeg(visit):
    page = visit()
    stream = io.BytesIO()
    draw("dog", 36, (320, 240)).save(stream, "AVIF")
    choose(page, {"name": "phone.avif", "mimeType": "image/avif", "buffer": stream.getvalue()})
    assert max(bars(page), key=bars(page).get) == "dog"


def test_of_several_photos_the_first_is_looked_at(visit):
    page = visit()
    drop(page, CAT, DOG)
    bars(page)
    expect(page.locator("#name")).to_have_text("cat.jpg")
    expect(page.get_by_text("One photo at a time: this is the first of 2.")).to_be_visible()


def test_a_newer_photo_ends_the_older_one(visit):
    page = visit()
    held, failed = [], []
    page.on("requestfailed", lambda request: failed.append(request.failure))
    page.route("**/predict", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/predict"):
        drop(page, CAT)
    drop(page, DOG)
    expect(page.locator("#name")).to_have_text("dog.jpg")
    assert max(bars(page), key=bars(page).get) == "dog"
    assert failed == ["net::ERR_ABORTED"]
    with contextlib.suppress(Error):  # it has ended
        held[0].abort()
    expect(page.locator("#verdict")).to_have_text("dog")


def test_a_photo_that_takes_long_to_prepare_is_not_the_services_fault_and_is_overtaken(visit):
    page = visit()
    page.clock.install()
    page.evaluate(
        """() => {
            const decode = createImageBitmap;
            const released = new Promise(resolve => window.release = resolve);
            window.createImageBitmap = async (file, options) => {
                if (file.name === "cat.jpg") await released;
                return decode(file, options);
            };
        }"""
    )
    drop(page, CAT)
    page.clock.run_for(61_000)
    expect(page.locator("#card")).to_have_attribute("data-state", "busy")
    assert "service" not in page.locator("#sentence").text_content()
    drop(page, DOG)
    bars(page)
    page.clock.run_for(61_000)
    page.evaluate("release()")
    page.clock.run_for(61_000)
    expect(page.locator("#verdict")).to_have_text("dog")
    expect(page.locator("#said")).to_have_text(re.compile("^Dog, "))


def test_while_it_looks_the_page_says_so(visit):
    page = visit()
    held = []

    def hold(route):
        held.append(route)

    page.route("**/predict", hold)
    with page.expect_request("**/predict"):
        drop(page, DOG)
    expect(page.locator("#card")).to_have_attribute("aria-busy", "true")
    expect(page.get_by_text("Looking at dog.jpg.")).to_be_attached()
    expect(page.get_by_text("The service may just be waking up").first).to_be_attached()
    held[0].continue_()
    bars(page)
    expect(page.locator("#card")).to_have_attribute("aria-busy", "false")


def test_the_map_takes_the_photos_place_and_gives_it_back(visit):
    page = visit()
    drop(page, DOG)
    bars(page)
    button = page.get_by_role("button", name="Where did it look?")
    expect(button).to_have_attribute("aria-pressed", "false")
    button.press("Enter")
    shown = page.get_by_role("img", name=re.compile("Where the model looked for dog"))
    expect(shown).to_be_visible()
    expect(page.get_by_role("img", name="Your photo dog.jpg")).to_be_hidden()
    assert shown.evaluate("e => e.naturalWidth") >= 224
    assert_accessible(page, "map")
    page.get_by_role("button", name="Show the photo").press("Enter")
    expect(page.get_by_role("img", name="Your photo dog.jpg")).to_be_visible()
    expect(shown).to_be_hidden()


def test_a_photo_unlike_any_that_the_model_knows_is_doubted_in_words(visit, start, request):
    with start(request.config.rootpath / "models/reference") as server:
        page = visit(server.url)
        drop(page, DOG)
        expect(page.locator("#badge")).to_have_text("Not sure")
        expect(page.locator("#sentence")).to_contain_text("The photo is unlike those that the model has learned from")


def test_a_service_that_is_gone_is_a_sentence_and_another_try(visit, start, request):
    with start(request.config.rootpath / "models/reference") as server:
        page = visit(server.url)
        expect(page).to_have_title("Cat or dog?")
        server.stop()
        page.watched.expected.append("ERR_CONNECTION_REFUSED")
        drop(page, DOG)
        assert sentence_of_error(page) == "The service cannot be reached. Check your connection and try again."
        page.get_by_role("button", name="Try again").click()
        assert "cannot be reached" in sentence_of_error(page)


def test_without_a_network_the_page_says_that_it_is_offline(visit):
    page = visit()
    expect(page).to_have_title("Cat or dog?")
    page.watched.expected.append("ERR_INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    drop(page, DOG)
    assert sentence_of_error(page) == "You are offline. Connect to a network and try again."
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    bars(page)


# What AWS itself answers in front of the function cannot be had without AWS; its documented shapes stand in for it.
@pytest.mark.parametrize(
    ("status", "body", "says", "again"),
    [
        (413, '{"Message":"Request must be smaller than 6291456 bytes"}', "larger than the service takes", False),
        (429, '{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded"}', "too much to do", True),
        (502, "Internal Server Error", "failed to answer (502)", True),
        (504, '{"message":"Endpoint request timed out"}', "failed to answer (504)", True),
        (403, '{"Message":"Forbidden"}', "does not let this request in", True),
        (200, "<html>a hotel's login</html>", "cannot read", True),
        (503, json.dumps({"detail": "the model is still loading"}), "The model is still loading.", True),
    ],
)
def test_answers_of_what_stands_in_front_are_sentences(visit, status, body, says, again):
    page = visit()
    page.watched.expected.append(f"status of {status}")
    page.route("**/predict", lambda route: route.fulfill(status=status, body=body, content_type="text/plain"))
    drop(page, DOG)
    text = sentence_of_error(page)
    assert says in text
    assert re.fullmatch(r"[A-Z].*[.!?]", text)
    expect(page.get_by_role("button", name="Try again")).to_be_visible(visible=again)


def test_the_page_works_below_a_stage_prefix(visit, server):
    page = visit("about:blank")
    outside = []

    def below(route):
        if "/Prod/" not in route.request.url:
            outside.append(route.request.url)
        route.continue_(url=route.request.url.replace("/Prod/", "/"))

    page.route(re.compile("^http"), below)
    page.goto(f"{server.url}Prod/")
    expect(page).to_have_title("Cat or dog?")
    drop(page, DOG)
    bars(page)
    assert outside == []


@pytest.mark.parametrize("device", [{}, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_fault_is_found(visit, scheme, device):
    page = visit(color_scheme=scheme, **device)
    page.watched.expected.append(REFUSED)
    expect(page).to_have_title("Cat or dog?")
    assert_accessible(page, "empty")
    drop(page, DOG)
    bars(page)
    assert_accessible(page, "answer")
    drop(page, TEXT)
    sentence_of_error(page)
    assert_accessible(page, "error")


def assert_accessible(page, state):
    found = Axe().run(page)
    assert found.violations_count == 0, f"{state}: {found.generate_report()}"
    assert len(found.response["passes"]) > 15


def bundle_of(folder, reference, classes):
    """A bundle whose answer is the colour of the photo: a cheap graph for any number of classes."""
    weights = np.random.default_rng(0).normal(0, 1.0, (3, len(classes))).astype(np.float32)
    weights[:, :3] = 3 * np.eye(3)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Mul", ["colour", "nought"], ["nothing"]),
        helper.make_node("ReduceMax", ["nothing"], ["unfamiliarity"], axes=[1], keepdims=0),
    ]
    size = reference.description.preprocessing.size
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, size, size])],
        [
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", len(classes)]) for name in OUTPUTS),
            helper.make_tensor_value_info("unfamiliarity", TensorProto.FLOAT, ["n"]),
        ],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(np.float32([0]), "nought")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    about = reference.description
    graph = about.graph.model_copy(update={"sha256": files.sha256_bytes(data), "bytes": len(data)})
    update = {
        "classes": tuple(classes),
        "graph": graph,
        "golden": (),
        "temperature": 1.0,
        "explanation": "occlusion",
    }
    described = about.model_copy(update=update)
    picture = about.golden[0]
    probabilities = Classifier(Bundle(folder, described), graph=data).predict(picture.data).probabilities
    golden = picture.model_copy(update={"probabilities": probabilities})
    return Bundle.write(folder, described.model_copy(update={"golden": (golden,)}), data).folder


def colour(*rgb):
    return photo(Image.new("RGB", (300, 200), rgb), "colour.png")


def test_a_bundle_of_three_classes_shows_its_three(visit, start, classifier, tmp_path):
    with start(bundle_of(tmp_path / "three", classifier.bundle, ["cats", "dogs", "guinea_pigs"])) as server:
        page = visit(server.url)
        expect(page.get_by_role("heading", level=1)).to_have_text("Cats, dogs or guinea pigs?")
        drop(page, colour(0, 0, 255))
        assert next(iter(bars(page))) == "guinea pigs"
        assert len(bars(page)) == 3
        expect(page.locator("#badge")).to_have_text("Confident")
        drop(page, colour(128, 128, 128))
        expect(page.locator("#badge")).to_have_text("Not sure")
        expect(page.locator("#sentence")).to_have_text(
            re.compile(r"^It may be .* or .*: the probability 0\.\d+ is below the .*\.$")
        )
        assert_accessible(page, "not sure")


def test_of_many_classes_the_first_are_shown_and_the_rest_is_a_key_away(visit, start, classifier, tmp_path):
    names = [f"<b>kind</b> {number}" for number in range(40)]
    with start(bundle_of(tmp_path / "many", classifier.bundle, names)) as server:
        page = visit(server.url, **PHONE)
        expect(page.get_by_role("heading", level=1)).to_have_text("Which of 40?")
        drop(page, colour(0, 255, 0))
        assert len(bars(page)) == 40
        meters = page.get_by_role("meter")
        expect(meters).to_have_count(6)
        page.get_by_text("34 more").press("Enter")
        expect(meters).to_have_count(40)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert_accessible(page, "many classes")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_docs_show_the_prediction_and_try_it(visit, server, scheme):
    page = visit(f"{server.url}docs", color_scheme=scheme)
    operation = page.locator(".opblock-post", has_text="/predict")
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("input[type=file]").set_input_files(DOG)
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table")).to_contain_text('"prediction": "dog"')
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(28, 32, 34)"
    assert dark == (scheme == "dark")
