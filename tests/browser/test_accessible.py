"""axe-core over every view in both colour schemes and at phone width; what is drawn too wide or too small."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kws_serve.manifest.folder import shipped_models_dir
from kws_serve.messages import Detection
from tests.browser.test_views import LAB
from tests.campaigns.proof import FULL
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.browser
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def busy() -> LiveServer:
    """A server with something in every view."""
    row = {**LAB, "state": "OFF", "detail": "refused"}
    found = [
        Detection("s", "e", "dscnn-s", "1", "onnx", label, 0.9, "once", i, 0.0, 0.0, time.time())
        for i, label in enumerate(["yes", "up", "glassbreak", "other"])
    ]
    models = [shipped_models_dir() / name for name in ("dscnn-s", "resnetse")]
    with live_server(models, watched=lambda: [row]) as server:
        server.engine.open_stream("hall", 16000, kind="microphone")
        server.log.publish(found)
        yield server


ALL = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 360)]


@pytest.mark.parametrize(("scheme", "width"), ALL if FULL else [("light", 1280), ("dark", 360)])
def test_axe_finds_no_serious_fault(pages, busy, scheme, width):
    page = pages.open(busy.http, color_scheme=scheme, viewport={"width": width, "height": 900}, reduced_motion="reduce")
    page.wait_for_selector("#detections li:nth-child(4)")
    page.click("#try")
    for view in ("live", "history", "settings", "system", "why", "token", "insecure"):
        if view in ("live", "history", "settings", "system"):
            page.click(f"nav a[href='#{view}']")
        elif view == "why":
            page.click("nav a[href='#live']")
            page.click("#detections li:last-child button")
            page.wait_for_selector("#why-facts div")
        else:
            page.keyboard.press("Escape")
            page.evaluate("id => (document.getElementById(id).hidden = false)", {"token": "token-form"}.get(view, view))
        page.wait_for_timeout(300)
        for details in page.query_selector_all("details:not([open]) > summary")[:1]:
            if details.is_visible():
                details.click()
        found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        faults = [(f["id"], f["impact"], f["nodes"][0]["html"][:120]) for f in found if f["impact"] in SERIOUS]
        assert faults == [], view
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    assert pages.faults == []


def test_a_timeline_page_is_accessible_and_needs_no_server(pages, busy, tmp_path):
    import subprocess
    import sys

    from kws_serve.manifest.package_data import demo_audio

    out = tmp_path / "demo.html"
    command = [
        sys.executable,
        "-c",
        "from kws_serve.cli import detect; detect()",
        str(demo_audio()),
        "--html",
        str(out),
    ]
    subprocess.run(command, check=True, capture_output=True)
    requests: list[str] = []
    page = pages.open("about:blank")
    page.on("request", lambda r: requests.append(r.url.split(",")[0]))
    page.goto(Path(out).as_uri())
    page.wait_for_selector(".card:nth-child(10)")
    page.wait_for_timeout(300)
    box = page.locator(".u-over").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 80, steps=5)
    page.mouse.up()  # looks closer
    assert all(url == out.as_uri() or url.startswith("data:") for url in requests), requests
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [f["id"] for f in found if f["impact"] in SERIOUS] == []
    assert pages.faults == []
