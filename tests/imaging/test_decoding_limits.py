"""What is accepted at its limits costs bounded memory and time, measured in a process of its own."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.imaging import decoding

ROOT = Path(__file__).parents[2]
MEASURE = """
import json, os, sys, warnings
from pathlib import Path
sys.path.append("tests")
from process_tree import ProcessTree
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier

warnings.simplefilter("ignore")
classifier = Classifier(Bundle.load(Path("models/reference")), 2)
for golden in classifier.bundle.description.golden:
    classifier.predict(golden.data)

tree = ProcessTree(os.getpid())
for path in sys.argv[1:]:
    tree.reset_peaks()
    before, began = tree.resident(), tree.cpu_seconds()
    answer = classifier.predict(Path(path)).prediction
    peaks = tree.peaks()
    growth = sum(peaks[pid] - size for pid, size in before.items() if pid in peaks) / 1e6
    print(json.dumps([Path(path).name, tree.cpu_seconds() - began, growth]))
"""


def noisy(width, height):
    """A picture that does not compress to nothing."""
    grain = np.random.default_rng(0).integers(0, 60, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.blend(draw("cat", 5).resize((width, height)), Image.fromarray(grain).resize((width, height)), 0.4)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_every_photo_at_the_limit_takes_less_than_250_megabytes_and_two_seconds(tmp_path, plain_environment):
    most, progressive = noisy(4096, 3072), noisy(5760, 4320)
    assert decoding.MAX_PIXELS - most.width * most.height < 20_000
    grey = most.convert("L")
    saved = {
        "lossless.webp": (most, {"lossless": True, "quality": 0, "method": 0}),
        "lossy.webp": (most.convert("RGBA"), {"quality": 80, "method": 0}),
        "transparent.png": (most.convert("RGBA"), {"compress_level": 1}),
        "palette.gif": (most.convert("P"), {}),
        "deep.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 256), {"compress_level": 1}),
        "float.tif": (grey.convert("F"), {}),
        "cmyk.tif": (most.convert("CMYK"), {"compression": "tiff_lzw"}),
        "plain.bmp": (most, {}),
        "progressive.jpg": (progressive.convert("CMYK"), {"progressive": True, "quality": 92, "subsampling": 0}),
        "baseline.jpg": (most.resize((8160, 6120)), {"quality": 92, "subsampling": 0}),
        "strip.png": (most.resize((60_000, 200)), {"compress_level": 1}),
    }
    for name, (picture, options) in saved.items():
        picture.save(tmp_path / name, **options)
    command = [sys.executable, "-c", MEASURE, *(tmp_path / name for name in saved)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=plain_environment, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, _, _ in found] == list(saved)
    print(*(f"{name}: {seconds:.2f} s, {megabytes:.0f} MB" for name, seconds, megabytes in found), sep="\n")
    assert not [one for one in found if one[2] >= 250 or one[1] >= 2]


@pytest.mark.slow
@pytest.mark.parametrize("pixels", [decoding.MAX_PIXELS, decoding.MAX_PIXELS_BASELINE_JPEG])
def test_a_photo_just_over_the_limit_is_refused_by_its_head(pixels):
    side = int(pixels**0.5) + 1
    stream = io.BytesIO()
    Image.new("L", (side, side)).save(stream, "PNG" if pixels == decoding.MAX_PIXELS else "JPEG")
    with pytest.raises(decoding.PhotoTooLargeError, match="megapixels"):
        decoding.open_photo(stream.getvalue())
