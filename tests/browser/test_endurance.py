"""The page left open: memory stays flat, frames come in time. `PROOF=full`: ten minutes; else a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from kws_serve.manifest.folder import shipped_models_dir
from kws_serve.manifest.package_data import demo_audio
from tests.campaigns.proof import FULL, record
from tests.support.service import Service, running
from tests.support.tiny_model import write_level_model

pytestmark = pytest.mark.browser
FRAMES = """
  window.frames = { n: 0, late: 0, longest: 0 };
  let before = null;
  const count = (now) => {
    if (before !== null && document.visibilityState === 'visible') {
      frames.n++;
      if (now - before > 33.4) frames.late++;
      frames.longest = Math.max(frames.longest, now - before);
    }
    before = now;
    requestAnimationFrame(count);
  };
  addEventListener('load', () => setTimeout(() => requestAnimationFrame(count), 3000));
"""


def half_minute(folder: Path) -> Path:
    """Speech with a beep every two seconds: 30 a minute for a model that fires on them, words for another."""
    speech, rate = soundfile.read(demo_audio(), dtype="float32")
    audio = 0.4 * soxr.resample(speech, rate, 16000)[: 16000 * 30]
    for at in range(8000, len(audio) - 3200, 32000):
        audio[at : at + 3200] = 0.9 * np.sin(np.arange(3200))
    path = folder / "hall.wav"
    soundfile.write(path, np.pad(audio, (0, 16000 * 30 - len(audio))), 16000)
    return path


def heap_bytes(page, session) -> int:
    session.send("HeapProfiler.collectGarbage")
    return int(session.send("Runtime.getHeapUsage")["usedSize"])


def test_the_page_stays_small_and_smooth(pages, free_port, tmp_path):
    seconds = 600 if FULL else 3
    write_level_model(tmp_path / "models", bias=-1.1)  # above 0.8 only
    (tmp_path / "models" / "dscnn-s").symlink_to(shipped_models_dir() / "dscnn-s")
    audio = half_minute(tmp_path)
    service = Service(tmp_path / "models", free_port, tmp_path / "log", "--source", f"hall={audio}", "--loop")
    with running(service):
        page = pages.open(service.http, init=FRAMES)
        page.wait_for_selector("#detections li", timeout=20000)
        page.select_option("#model", "dscnn-s")
        page.wait_for_timeout(3000)
        session = page.context.new_cdp_session(page)
        page.evaluate("Object.assign(frames, { n: 0, late: 0, longest: 0 })")
        heap, steps = [heap_bytes(page, session)], 6
        for _ in range(steps):
            page.wait_for_timeout(1000 * seconds / steps)
            heap.append(heap_bytes(page, session))
        frames = page.evaluate("frames")
        detections = len(service.rows())
        cards = page.evaluate("document.querySelectorAll('#detections li').length")
        assert cards <= 100
        assert max(heap) < 40e6
        assert min(heap[-2:]) < heap[1] + 4e6  # flat, but for the cards that it keeps
    late = 100 * frames["late"] / max(1, frames["n"])
    record(
        "page",
        f"{seconds} s, {detections} detections, {frames['n']} frames",
        f"{late:.2f} % of frames over 33 ms, the longest {frames['longest']:.0f} ms; heap "
        + " ".join(f"{h / 1e6:.1f}" for h in heap)
        + " MB",
    )
    assert pages.faults == []
