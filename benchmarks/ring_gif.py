"""The moving picture of the README: a planted ring of a simulated world, as its page plays it in headless Chromium.

python -m benchmarks.ring_gif    # make ring-gif: docs/ring.gif
"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.report import ROOT
from graph.rings.picture import ring_html
from tests.browser import CHROMIUM, OPTIONS
from tests.graph.rings.picture.records import world_ring

OUT = ROOT / "docs" / "ring.gif"
SIZE = (980, 620)
FRAMES = 36
PICTURE = "document.querySelector('.ringwatch-picture').picture"


def film(page: Path) -> list[Image.Image]:
    """The ring's growth, in steps that follow its payments and reports: quiet stretches are short."""
    frames = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        seen = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        seen.goto(page.as_uri())
        seen.wait_for_timeout(800)
        model = f"{PICTURE}.model"
        start, end = seen.evaluate(f"[{model}.start, {model}.end]")
        told = seen.evaluate(f"[...{model}.scene.payments.time, ...{model}.scene.payments.reported]")
        moments = sorted({start, *(t for t in told if t is not None and start <= t <= end)})
        for i in range(FRAMES):
            at = moments[round(i * (len(moments) - 1) / (FRAMES - 1))]
            seen.evaluate(f"{PICTURE}.set({{moment: {at}}})")
            seen.wait_for_timeout(60)
            frames.append(Image.open(io.BytesIO(seen.screenshot())).convert("RGB"))
        browser.close()
    return frames


def main() -> None:
    """Write the animation."""
    record, payments = world_ring("device_farm")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "ring.html"
        page.write_text(ring_html(record, payments), encoding="utf-8")
        frames = film(page)
    strip = Image.new("RGB", (SIZE[0], SIZE[1] * 6))  # colours of the whole film, such as those that glow for a moment
    for i, frame in enumerate(frames[:: FRAMES // 6][:6]):
        strip.paste(frame, (0, i * SIZE[1]))
    palette = strip.quantize(64, dither=Image.Dither.NONE)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    times = [260] * (FRAMES - 1) + [3000]
    small[0].save(OUT, save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size / 1e3:,.0f} kB, {FRAMES} frames")


if __name__ == "__main__":
    main()
