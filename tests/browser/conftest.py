from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

sync_api = pytest.importorskip("playwright.sync_api")

RATE_HZ = 44100
FLAGS = [
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    found = next((p for name in ("chromium", "google-chrome", "chrome") if (p := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return found


@pytest.fixture(scope="package")
def playwright() -> Iterator[sync_api.Playwright]:
    with sync_api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def shared(playwright: sync_api.Playwright, chromium: str) -> sync_api.Browser:
    """A browser for all tests that need no flags of their own; each has contexts of its own."""
    return playwright.chromium.launch(executable_path=chromium, args=FLAGS)


class Pages:
    """Pages and what they complained of: a console error or a CSP violation fails the test."""

    def __init__(self, playwright: sync_api.Playwright, shared: sync_api.Browser, chromium: str, folder: Path) -> None:
        self.chromium = chromium
        self.folder = folder
        self.complaints: list[str] = []
        self._playwright = playwright
        self._shared = shared
        self._opened: list[sync_api.Browser | sync_api.BrowserContext] = []

    def open(
        self,
        url: str,
        *,
        microphone: np.ndarray | None = None,
        deny: bool = False,
        init: str = "",
        flags: Sequence[str] = (),
        **context: object,
    ) -> sync_api.Page:
        """A page whose microphone hears `microphone` (44.1 kHz): then in a browser of its own."""
        own = microphone is not None or deny or bool(flags)
        flags = [*(f for f in FLAGS if not (deny and "fake-ui" in f)), *flags]
        if microphone is not None:
            path = self.folder / "microphone.wav"
            silence = np.zeros(RATE_HZ)
            soundfile.write(path, np.concatenate([silence, microphone, silence]), RATE_HZ, subtype="PCM_16")
            flags.append(f"--use-file-for-fake-audio-capture={path}%noloop")
        browser = self._shared
        if own:
            browser = self._playwright.chromium.launch(executable_path=self.chromium, args=flags)
            self._opened.append(browser)
        opened = browser.new_context(**{"permissions": [] if deny else ["microphone"], **context})
        opened.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " e => console.error('CSP ' + e.violatedDirective + ' ' + e.blockedURI));" + init
        )
        self._opened.append(opened)
        opened.on("page", self._listen)
        page = opened.new_page()
        page.goto(url)
        return page

    def _listen(self, page: sync_api.Page) -> None:
        page.on("console", lambda m: m.type == "error" and self.complaints.append(m.text))
        page.on("pageerror", lambda e: self.complaints.append(str(e)))

    @property
    def faults(self) -> list[str]:
        """What they complained of, but that a server that was stopped does not answer."""
        return [c for c in self.complaints if "ERR_CONNECTION" not in c and "ERR_EMPTY_RESPONSE" not in c]

    def close(self) -> None:
        for opened in reversed(self._opened):
            opened.close()


@pytest.fixture
def pages(playwright: sync_api.Playwright, shared: sync_api.Browser, chromium: str, tmp_path: Path) -> Iterator[Pages]:
    opened = Pages(playwright, shared, chromium, tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def beeps() -> Callable[[int], np.ndarray]:
    """So many loud seconds, each after a quiet one, at 44.1 kHz."""

    def make(n: int) -> np.ndarray:
        tone = 0.7 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ // 2) / RATE_HZ)
        return np.concatenate([np.zeros(RATE_HZ), tone] * n)

    return make
