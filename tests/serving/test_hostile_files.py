"""Files made to exhaust or mislead a decoder: none exceeds the guaranteed cost, each gets a plain answer."""

import sys
import time

import hostile_files
import pytest
from hostile_requests import requests
from mutations import bare, in_other_formats, multipart, mutated_photos, mutations
from process_tree import Idle, MemoryWatch, ProcessTree, wait_for_rest

MAX_GROWTH = 250e6
MAX_CPU_SECONDS = 2.3
"""2 s for the photo; the rest is for receiving 24 MiB and for the model."""
EXPENSIVE = (
    "webp_65536_prefix_groups.webp",
    "png_1000_iccp_chunks.png",
    "iccp_19000_chunks.png",
    "rle_fill_1kB.bmp",
    "rle_single_pixel_runs.bmp",
    "app13_8bim_24MiB.jpg",
    "scans_32_24_megapixels.jpg",
    "lossless_12_megapixels.webp",
    "progressive_12_megapixels.jpg",
    "baseline_48_megapixels.jpg",
    "deep_12_megapixels.png",
)
ACCEPTED = tuple(name for name in EXPENSIVE if "megapixels" in name and "scans" not in name)
"""Photos at the limits, which must be answered."""
FOREIGN_WORDS = ("arguments", "Traceback", "cannot identify", "buffer", "bytes not processed", "Errno")
"""Words of Pillow and Python, which mean nothing to the sender of a photo."""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("name", EXPENSIVE)
def test_no_file_costs_more_memory_or_processor_time_than_promised(name, served_process, send, request):
    made = name in hostile_files.NAMES
    data = hostile_files.make(name) if made else (request.getfixturevalue("hostile") / name).read_bytes()
    tree = ProcessTree(served_process.pid)
    photo = hostile_files.saved("JPEG")
    assert send(served_process.address, "POST", "/predict", photo, [("content-type", "image/jpeg")])[0] == 200
    time.sleep(0.2)
    idle = Idle(tree)
    tree.reset_peaks()
    with MemoryWatch(tree) as watch:
        before = tree.cpu_seconds()
        status, _, body = send(served_process.address, "POST", "/predict", data, [("content-type", "image/png")])
        cpu = wait_for_rest(tree) - before
        growth = idle.growth(watch.take())
    print(f"{name}: {status}, {cpu:.2f} CPU s, {growth / 1e6:.0f} MB")
    assert status == 200 if name in ACCEPTED else status in (413, 415, 422), body
    assert cpu <= MAX_CPU_SECONDS
    assert growth <= MAX_GROWTH
    assert send(served_process.address, "POST", "/predict", photo, [("content-type", "image/jpeg")])[0] == 200


def small_files():
    """Every file that is quick to send and to refuse, with its name."""
    photo = hostile_files.saved("JPEG")
    yield from ((name, hostile_files.make(name)) for name in hostile_files.NAMES if name not in EXPENSIVE)
    yield from mutated_photos([photo, *in_other_formats(photo)], 64)


def test_every_hostile_request_gets_a_prediction_or_a_reason_in_plain_words(ask):
    photo = hostile_files.saved("JPEG")
    sent = [(name, (bare, multipart)[number % 2](data)) for number, (name, data) in enumerate(small_files())]
    sent += [each for each in (*requests(photo), *mutations([photo], 48)) if len(each.request.body) < 2**22]
    strange = []
    for name, request in sent:
        # Bytes, since names of files may be anything.
        headers = [(key.encode(), value.encode()) for key, value in request.headers]
        response = ask.request(request.method, request.path, headers=headers, content=request.body)
        content = response.json()
        if response.status_code == 200:
            assert "prediction" in content, name
            continue
        assert response.headers["content-type"] == "application/problem+json", name
        if response.status_code not in (400, 413, 415, 422) or any(word in content["detail"] for word in FOREIGN_WORDS):
            strange.append((name, response.status_code, content["detail"]))
    assert not strange


def test_mutated_photos_are_the_same_every_time():
    photos = [hostile_files.saved("JPEG"), hostile_files.saved("PNG")]
    once, twice = (list(mutated_photos(photos, 16, seed=7)) for _ in range(2))
    assert once == twice
    assert once != list(mutated_photos(photos, 16, seed=8))
    assert sum(data not in photos for _, data in once) > 12
