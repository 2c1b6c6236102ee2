"""Take the README's screenshots of the web page: drawn animals, the reference bundle, headless Chromium.

python scripts/page_pictures.py
"""

import contextlib
import io
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from catsdogs_lib.data.synthetic.render import draw

ROOT = Path(__file__).parents[1]
DESKTOP: dict[str, Any] = {"viewport": {"width": 1200, "height": 880}}
PICTURES: dict[str, tuple[str, int, bool, dict[str, Any]]] = {
    "page-light": ("cat", 21, False, {"color_scheme": "light", **DESKTOP}),
    "page-dark": ("cat", 30, True, {"color_scheme": "dark", **DESKTOP}),
}
"""Name of the picture -> animal on the photo, its seed, whether to show the explanation, browser options."""
MAX_PICTURE_BYTES = 200_000


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Serve the reference bundle on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [Path(sys.executable).with_name("catsdogs"), "serve", "--port", port, "--bundle", "models/reference"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ready"):
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()


def drawn(kind: str, seed: int) -> dict[str, Any]:
    """Draw a photo, in the form of an upload for the browser."""
    stream = io.BytesIO()
    draw(kind, seed, (960, 720)).save(stream, "JPEG", quality=90)
    return {"name": f"{kind}.jpg", "mimeType": "image/jpeg", "buffer": stream.getvalue()}


def main() -> None:
    """Take every picture."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        raise SystemExit("needs Chromium; on Debian 'apt-get install chromium'")
    with served() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, (kind, seed, why, options) in PICTURES.items():
            page = browser.new_page(reduced_motion="reduce", **options)
            page.goto(url)
            page.set_input_files("#files", drawn(kind, seed))
            expect(page.locator("#card")).to_have_attribute("data-state", "answer")
            if why:
                page.locator("#why").click()
                expect(page.locator("#why")).to_have_attribute("aria-pressed", "true")
            page.locator("#preview").evaluate("image => image.decode()")
            page.wait_for_timeout(300)  # two frames later the bars have their width
            target = ROOT / "docs/pictures" / f"{name}.png"
            # 256 colours are enough for a page, and a third of the bytes.
            Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(256).save(target, optimize=True)
            print(f"{target.relative_to(ROOT)}: {target.stat().st_size} bytes")
            assert target.stat().st_size < MAX_PICTURE_BYTES
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
