"""What the terminal shows: a banner, a line per detection and per change of a source, and one live line (on a tty)."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kws_serve import __version__
from kws_serve.engine.engine import Engine
from kws_serve.host.printer import Printer
from kws_serve.messages import Detection, JsonObject

if TYPE_CHECKING:
    from kws_serve.sources.supervisor import SourceState

SILENCE_S = 5.0
SILENCE_LEVEL = 10 ** (-60 / 20)
"""A microphone below this peak for SILENCE_S is worth a hint; even a quiet room is louder."""

MICROPHONE_HELP = (
    "open the page to use the browser's microphone, or start with --source FILE or --demo; --list-devices lists what "
    "there is; on Linux you must be in the group audio (sudo usermod -aG audio $USER, and log in again)"
)
"""Where there is no microphone."""

_BAR = 20


class Terminal:
    """Lines on stdout; safe from any thread, and none waits for the terminal."""

    def __init__(self, engine: Engine, notice: str, printer: Printer) -> None:
        self.engine = engine
        self.notice = notice
        self.tty = printer.tty
        self._printer = printer
        self._heard_s = time.monotonic()
        self._hinted = False
        self._missing: set[str] = set()  # microphones that are not there, which was hinted at

    def banner(self, url: str, log: str, sources: Sequence[SourceState]) -> None:
        """Where the page is, what the service knows and listens to, where it keeps what it finds."""
        self._print(f"kws-serve {__version__}: {url}")
        for name, spec in self.engine.models.items():
            backends = [m.backend_name for m in self.engine.loaded if m.spec.name == name]
            kind = "words " if spec.task == "keyword" else "events"
            experimental = [x for x in spec.provenance.get("experimental_labels", []) if x in spec.detection]
            labels = " ".join(f"{x}*" if x in experimental else x for x in spec.detection)
            mark = "  (* experimental: few recordings)" if experimental else ""
            again = f", {spec.verify.model} looks again" if spec.verify else ""
            self._print(f"  {kind}  {labels}  [{name} {spec.version} on {' and '.join(backends)}{again}]{mark}")
        self._print(f"  log     {log}")
        for state in sources:
            self.source(state)
        if not sources:
            self._print("  source  none of its own: programs and browsers can send audio")
        if self.notice:
            self._print(f"  note    {self.notice}")
        self._print("Not a safety, medical or security device. Ctrl-C stops.")

    def source(self, state: SourceState) -> None:
        """A source as it is now."""
        retry = f", next try in {state.retry_in_s:.1f} s" if state.retry_in_s is not None else ""
        detail = f" ({state.detail})" if state.detail else ""
        self._print(f"  source  {state.name}: {state.state}{detail}{retry}")
        if state.kind == "mic" and state.state == "retrying" and state.name not in self._missing:
            self._missing.add(state.name)
            self._print(f"hint: {MICROPHONE_HELP}")
        elif state.state == "live":
            self._missing.discard(state.name)

    def reloaded(self, text: str) -> None:
        """What SIGHUP did."""
        self._print(f"  reload  {text}")

    def server(self, row: JsonObject) -> None:
        """Another server that has come or gone."""
        detail = f" ({row['detail']}), last seen {row['last_seen'] or 'never'}" if row["state"] == "OFF" else ""
        self._print(f"  server  {row['name']} at {row['address']}: {row['state']}{detail}")

    def detection(self, d: Detection) -> None:
        """A detection, as it happens. The log's thread tells it, so the printer's makes the line."""
        self._printer.put(lambda: _detection_line(d))

    def live_line(self) -> None:
        """The loudest stream's level and top score, rewritten in place; a hint after 5 s of silence."""
        streams = list(self.engine.streams.values())
        loudest = max(streams, key=lambda s: s.level, default=None)
        self._hint(loudest.level if loudest else 1.0)
        if not self.tty:
            return
        if loudest is None:
            text = "waiting for audio"
        else:
            specs, top = self.engine.models, self.engine.top(loudest)
            tops = [(score, label) for model, (label, score) in top.items() if label not in specs[model].rest_labels]
            score, label = max(tops, default=(0.0, "-"))
            db = 20 * math.log10(max(loudest.level, 1e-5))
            bar = "#" * round(_BAR * (1 + max(-60.0, db) / 60))
            text = f"{loudest.name}  [{bar:<{_BAR}}] {db:4.0f} dB  {label} {score:.2f}  {len(streams)} stream(s)"
        self._printer.live(_printable(text)[: shutil.get_terminal_size().columns - 1])

    def _hint(self, level: float) -> None:
        now_s = time.monotonic()
        if level > SILENCE_LEVEL:
            self._heard_s, self._hinted = now_s, False
        elif not self._hinted and now_s - self._heard_s > SILENCE_S:
            self._hinted = True
            self._print("hint: 5 s of silence. Is the microphone muted? --list-devices shows the others.")

    def clear(self) -> None:
        """Take the live line away."""
        self._printer.live("")

    def _print(self, text: str) -> None:
        self._printer.put(_printable(text) + "\n")


def _detection_line(d: Detection) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(d.at))
    phase = "" if d.phase == "once" else f" {d.phase}"
    latency = "" if d.latency_ms is None else f"  {d.latency_ms:.0f} ms"
    return _printable(f"{clock}  {d.stream}  {d.label}{phase}  {d.score:.2f}{latency}") + "\n"


def _printable(text: str) -> str:
    """Without control characters: a hostile name cannot write on the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
