"""A ring's page in headless Chromium: how soon it is there, how large it is, and how many frames a second it pans with.

    python -m benchmarks.bench_pictures

There is no GPU here, so the page draws on a canvas, on the same cores that run it; with a graphics card it draws with
WebGL. Beside it: WebGL by the processor (SwiftShader), which the page avoids.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, show, write
from graph.rings.picture import ring_html
from tests.browser import CHROMIUM, OPTIONS
from tests.graph.rings.picture.records import big_ring

SIZES = (200, 2_000, 10_000)
PANNED_MS = 4_000
PICTURE = "document.querySelector('.ringwatch-picture').picture"
# Moves the view in each frame, by more than its own width in all, with all nodes shown: frames a second, and the
# slowest frame in milliseconds.
PAN = """async (ms) => {
  const picture = document.querySelector('.ringwatch-picture').picture;
  const camera = { setState: (state) => { picture.stage.camera = state; } };
  const frame = () => new Promise(requestAnimationFrame);
  for (let i = 0; i < 5; i++) { camera.setState({ x: .5 + .001 * i }); await frame(); }
  // The frame is finished before the next one begins, whatever the browser would put off.
  const gl = picture.stage.sigma?.getWebGLContext();
  const done = () => gl ? gl.finish() : picture.stage.front.getContext('2d').getImageData(0, 0, 1, 1);
  const begun = performance.now();
  let [frames, before, slowest] = [0, begun, 0];
  while (performance.now() - begun < ms) {
    const t = (performance.now() - begun) / ms;
    camera.setState({ x: .5 + .6 * Math.sin(12 * t), y: .5 + .4 * Math.cos(12 * t), ratio: .8 });
    const now = await frame();
    done();
    slowest = Math.max(slowest, now - before);
    [before, frames] = [now, frames + 1];
  }
  return [1000 * frames / (performance.now() - begun), slowest];
}"""
SLIDE = """async (steps) => {
  const picture = document.querySelector('.ringwatch-picture').picture;
  const { start, end } = picture.model;
  const begun = performance.now();
  for (let i = 1; i <= steps; i++) {
    picture.set({ moment: start + Math.round((end - start) * i / steps) });
    await new Promise(requestAnimationFrame);
  }
  return 1000 * steps / (performance.now() - begun);
}"""


def measured(browser: Any, nodes: int, folder: Path) -> dict[str, float]:
    """What a page of that many nodes takes; the best of two visits where time counts."""
    record, payments = big_ring(nodes)
    begun = time.perf_counter()
    text = ring_html(record, payments)
    made = time.perf_counter() - begun
    path = folder / f"{nodes}.html"
    path.write_text(text, encoding="utf-8")
    first, pan, slowest, slide = [], [], [], []
    for _ in range(2):
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(path.as_uri())
        while not page.evaluate("performance.getEntriesByName('ringwatch-drawn').length"):
            page.wait_for_timeout(20)
        first.append(page.evaluate("performance.getEntriesByName('ringwatch-drawn')[0].startTime"))
        page.evaluate(f"{PICTURE}.act.everyone()")
        page.wait_for_timeout(1500)
        rate, worst = page.evaluate(PAN, PANNED_MS)
        pan.append(rate)
        slowest.append(worst)
        slide.append(page.evaluate(SLIDE, 20))
        page.close()
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{path.as_uri()}#renderer=webgl")
    page.wait_for_timeout(3000)
    page.evaluate(f"{PICTURE}.act.everyone()")
    page.wait_for_timeout(3000)
    by_webgl, _ = page.evaluate(PAN, PANNED_MS)
    page.close()
    return {
        "webgl": by_webgl,
        "make": made,
        "first": min(first) / 1000,
        "bytes": len(text.encode()) / 1e6,
        "pan": max(pan),
        "slowest": min(slowest),
        "slide": max(slide),
    }


def main() -> None:
    """Measure all sizes, write and show the figures."""
    from playwright.sync_api import sync_playwright

    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        version = browser.version
        for nodes in SIZES:
            found = measured(browser, nodes, Path(folder))
            goal = 30.0 if nodes >= 2000 else None
            beside = {
                "slowest_frame_ms": found["slowest"],
                "slider_steps_per_s": found["slide"],
                "webgl_without_gpu": found["webgl"],
            }
            figures[f"pan_{nodes}"] = Figure(found["pan"], "frames/s", goal, peer=beside)
            figures[f"first_picture_{nodes}"] = Figure(found["first"], "s", better="lower")
            figures[f"make_page_{nodes}"] = Figure(found["make"], "s", better="lower")
            figures[f"page_{nodes}"] = Figure(found["bytes"], "MB", better="lower")
        browser.close()
    write("pictures", figures, chromium=version)
    show("pictures", figures)


if __name__ == "__main__":
    main()
