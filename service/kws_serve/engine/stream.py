"""One stream: one channel of audio from one source, with its own sample count and a bounded inbox.

Sources call `push`, `skip`, `end` and `close` from any thread; the engine's owner thread takes from the inbox.
Every sample is accounted for: received = processed + dropped + buffered, at the source's rate, at any moment.
"""

from __future__ import annotations

import secrets
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kws_serve.core.pcm import peak_of
from kws_serve.core.resampler import StreamResampler
from kws_serve.messages import Float32Array, Float64Array, Gap, Int16Array

MAX_LAG_S = 2.0
"""An input that has waited longer than this is dropped, with an exact gap (live streams)."""

MAX_AHEAD_S = 2.0
"""A reader stops reading a stream that is further ahead of its own wall clock than this."""

RESEND_S = 10.0
"""What a client's ring holds: so much may come at once when it goes on after a restart of the service."""

_MARKS = 128  # seconds of messages of 20 ms or more; only the last second is asked for


@dataclass(frozen=True, slots=True)
class Resumed:
    """A stream that an earlier run of the service had: its client goes on with it."""

    epoch: str
    first_sample: int  # from which the client can send
    heard_sample: int  # how far the earlier run had processed it, as far as the log knows
    decided_s: dict[tuple[str, str], float]  # (model, label) -> decided_s of its last detection in the log


@dataclass(slots=True)
class _Part:
    """What waits in an inbox: samples, or `lost` samples that never came."""

    samples: Float32Array | Int16Array | None
    n: int
    arrived_s: float
    peak: float = 0.0
    reason: str = ""


class Stream:
    """See the module. Made by `Engine.open_stream`."""

    def __init__(
        self,
        name: str,
        rate_hz: int,
        models: tuple[str, ...],
        *,
        slot: int,
        kind: str,
        channels: int,
        scores: bool,
        live: bool,
        wake: Callable[[Stream], None],
        resumed: Resumed | None = None,
    ) -> None:
        self.name = name
        self.epoch = resumed.epoch if resumed else secrets.token_hex(4)
        self.rate_hz = rate_hz
        self.models = models
        self.slot = slot
        self.kind = kind
        self.channels = channels
        self.scores = scores
        self.live = live
        self.opened_at = time.time()
        self.faulted = False  # its accounts did not add up, and that was said
        self.connected = True  # False: its client has vanished and may come back
        self.base_sample = min(resumed.first_sample, resumed.heard_sample) if resumed else 0
        """The samples before it were an earlier run's; they count as received and processed."""
        self.received_samples = self.base_sample
        self.processed_samples = self.base_sample
        self.dropped_samples = 0
        self.told_s = dict(resumed.decided_s) if resumed else {}  # what the log has: see `is_told`
        self.level = 0.0
        self.ending = False  # no more input will come
        self.abandoned = False  # nobody waits for StreamDone
        self.resampler = StreamResampler(rate_hz)
        self.segment_first = self.base_sample  # source sample at which the segment begins: moves at each gap
        self.zeros_left = -1  # at 16 kHz, to feed after the end; -1: not there yet
        self.end_16k: int | None = None  # real samples of the last segment
        self._inbox: deque[_Part] = deque()
        self._first_at: float | None = None  # wall clock of this stream: arrival of sample 0
        self._marks: deque[tuple[int, float]] = deque(maxlen=_MARKS)  # (samples taken, arrived_s)
        self._lock = threading.Lock()
        self._wake = wake
        self._resumed = resumed is not None
        self._reheard_sample = resumed.heard_sample if resumed else 0

    def is_told(self, model: str, label: str, phase: str, decided_s: float, refractory_s: float) -> bool:
        """Whether an earlier run has decided this already: its patches are computed again after a restart."""
        if not self.told_s:
            return False
        upto_s = max((s for (m, _), s in self.told_s.items() if m == model), default=-1.0)
        quiet_s = self.told_s.get((model, label), -1.0) + (refractory_s if phase != "end" else 0.0)
        return decided_s <= upto_s or decided_s < quiet_s

    def is_reheard(self, decided_sample: int, patch_samples: int) -> bool:
        """Whether a patch rests on zeros where an earlier run had audio, and that run has decided it: what comes again
        after a restart begins in the midst of a stream.
        """
        again = self.segment_first == self.base_sample and decided_sample <= self._reheard_sample
        return again and decided_sample < self.base_sample + patch_samples

    @property
    def buffered_samples(self) -> int:
        """Samples received that wait for the engine: counted where they lie."""
        return self.counts[3]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """(received, processed, dropped, buffered) at one moment."""
        with self._lock:
            buffered = sum(part.n for part in self._inbox)
            return self.received_samples, self.processed_samples, self.dropped_samples, buffered

    @property
    def unaccounted_samples(self) -> int:
        """Received - processed - dropped - buffered: always 0."""
        received, processed, dropped, buffered = self.counts
        return received - processed - dropped - buffered

    @property
    def totals_s(self) -> Float64Array:
        """Seconds (received, processed, dropped) by this run of the service."""
        received, processed, dropped, _ = self.counts
        base = self.base_sample
        return np.array([received - base, processed - base, dropped]) / self.rate_hz

    def push(self, samples: Float32Array | Int16Array, arrived_s: float, peak: float | None = None) -> None:
        """Take samples (n,), float32 in [-1, 1) or int16; `arrived_s`: time.monotonic() when the last one came; `peak`
        where it is known: the highest magnitude, 1.0 full scale.
        """
        n = len(samples)
        if not n or self.ending:
            return
        if peak is None:
            peak = peak_of(samples)
        with self._lock:
            if self._first_at is None:
                self._first_at = arrived_s - n / self.rate_hz - (RESEND_S if self._resumed else 0.0)
            self.received_samples += n
            self._inbox.append(_Part(samples, n, arrived_s, peak))
            self._shed(arrived_s)
        self._wake(self)

    def skip(self, n: int, reason: str) -> None:
        """The source itself lost `n` samples here: an exact gap, counted as received and dropped."""
        if n <= 0 or self.ending:
            return
        with self._lock:
            self.received_samples += n
            self._inbox.append(_Part(None, n, time.monotonic(), reason=reason))
        self._wake(self)

    def end(self) -> None:
        """No more samples: what is inside is finished with zeros, then StreamDone is emitted and the name is free."""
        self.ending = True
        self._wake(self)

    def close(self) -> None:
        """The source has vanished: what was received is still processed, but the name is free at once."""
        self.abandoned = True
        self.end()

    def ahead_s(self, now_s: float) -> float:
        """Seconds of audio received beyond this stream's own wall clock, which starts at its first sample."""
        if self._first_at is None:
            return 0.0
        return (self.received_samples - self.base_sample) / self.rate_hz - (now_s - self._first_at)

    def _shed(self, now_s: float) -> None:
        """Drop what waited too long: the oldest parts become one exact gap. Called with the lock held."""
        if not self.live:
            return
        lost = 0
        while self._inbox:
            part = self._inbox[0]
            shed_before = part.samples is None and part.reason == "overload"
            if not shed_before and (part.samples is None or now_s - part.arrived_s <= MAX_LAG_S):
                break
            lost += part.n
            self._inbox.popleft()
        if lost:
            self._inbox.appendleft(_Part(None, lost, now_s, reason="overload"))

    def take(self, max_samples: int, now_s: float) -> tuple[list[Float32Array | Int16Array], Gap | None]:
        """Up to `max_samples` (or one part) of waiting samples in order; a gap comes alone, before what follows it."""
        parts: list[Float32Array | Int16Array] = []
        taken = 0
        peak = 0.0
        with self._lock:
            self._shed(now_s)
            while self._inbox:
                part = self._inbox[0]
                if part.samples is None:
                    if parts:
                        break
                    self._inbox.popleft()
                    gap = Gap(self.name, self.processed_samples + self.dropped_samples, part.n, part.reason, self.epoch)
                    self.dropped_samples += part.n
                    return [], gap
                room = max_samples - taken
                if room <= 0:
                    break
                if part.n <= room:
                    samples = part.samples
                    self._inbox.popleft()
                else:
                    samples = part.samples[:room]
                    part.samples, part.n = part.samples[room:], part.n - room
                taken += len(samples)
                self.processed_samples += len(samples)
                self._marks.append((self.processed_samples + self.dropped_samples, part.arrived_s))
                parts.append(samples)
                peak = max(peak, part.peak)
        if taken:
            self.level = max(peak, self.level * 0.5 ** (taken / self.rate_hz / 0.1))
        return parts, None

    @property
    def waiting(self) -> bool:
        """Whether the engine has something to do for this stream."""
        return bool(self._inbox) or self.ending

    @property
    def drained(self) -> bool:
        """Whether the end was announced and every sample before it was taken."""
        return self.ending and not self._inbox

    def arrived_s(self, sample: int) -> float | None:
        """When the server had input sample `sample` - 1, i.e. the first `sample` samples; None if long ago."""
        i = bisect_left(self._marks, sample, key=lambda mark: mark[0])
        if not self._marks or i >= len(self._marks):
            return self._marks[-1][1] if self._marks else None
        return self._marks[i][1]

    def sample_at(self, at_16k: int) -> int:
        """Source sample index of a sample at 16 kHz of the current segment, clamped to the real samples."""
        if self.end_16k is not None:
            at_16k = min(at_16k, self.end_16k)
        return self.segment_first + (at_16k * self.rate_hz + 8000) // 16000
