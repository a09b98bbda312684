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
from kws_serve.core.resampler import ENGINE_RATE_HZ, StreamResampler
from kws_serve.engine.resumed import Resumed
from kws_serve.messages import Float32Array, Float64Array, Gap, Int16Array

MAX_LAG_S = 2.0
"""An input that has waited longer than this is dropped, with an exact gap (live streams): a word found later helps
nobody, and the inbox stays bounded."""

MAX_AHEAD_S = 2.0
"""A reader stops reading a stream that is further ahead of its own wall clock than this: as much as may wait."""

AGAIN_S = 0.020
"""When the reader of a free stream that is full looks again: a tick later."""

RESEND_S = 10.0
"""What a client's ring holds: so much may come at once when it goes on after a restart of the service."""

HALVED_S = 0.1
"""In which the level falls by half: slow enough for an eye, fast enough for syllables."""

_MARKS = 128
"""Parts whose arrival is kept: 2.5 s of messages of 20 ms. A detection asks for its deciding sample, of this tick."""


@dataclass(slots=True)
class _Part:
    """What waits in an inbox: samples, or a gap where samples never came."""

    samples: Float32Array | Int16Array | None  # (n,); None: lost
    n: int
    arrived_s: float  # time.monotonic()
    peak: float = 0.0  # highest magnitude, 1.0 full scale
    reason: str = ""  # of a loss: see Gap


class Stream:
    """One stream, made by `Engine.open_stream`; sample counts are at its source's rate unless they end in `_16k`."""

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
        self.owner = ""  # see Position
        self.resumed = resumed  # what an earlier run of the service had of it
        self.base_sample = resumed.base_sample if resumed else 0
        self.received_samples = self.base_sample
        self.processed_samples = self.base_sample
        self.dropped_samples = 0
        self.level = 0.0
        self.ending = False  # no more input will come
        self.abandoned = False  # nobody waits for StreamDone
        self.resampler = StreamResampler(rate_hz)
        self.segment_first = self.base_sample  # source sample at which the segment begins: moves at each gap
        self.zeros_left = -1  # at 16 kHz, to feed after the end; -1: not there yet, 0: finished
        self.end_16k: int | None = None  # real samples of the last segment
        self._inbox: deque[_Part] = deque()
        self._first_at: float | None = None  # wall clock of this stream: arrival of sample 0
        self._marks: deque[tuple[int, float]] = deque(maxlen=_MARKS)  # (samples taken or lost so far, arrived_s)
        self._lock = threading.Lock()
        self._wake = wake

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
                self._first_at = arrived_s - n / self.rate_hz - (RESEND_S if self.resumed else 0.0)
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

    def early_s(self, now_s: float) -> float:
        """Seconds until a reader may read on, 0 or less: now. Live ones go by their clock, free ones by what waits."""
        if self.live:
            return self.ahead_s(now_s) - MAX_AHEAD_S
        return AGAIN_S if self.buffered_samples > MAX_AHEAD_S * self.rate_hz else 0.0

    def _shed(self, now_s: float) -> None:
        """Drop what waited too long: the oldest parts become one exact gap. Called with the lock held."""
        # inbox, oldest first:  [overload 5][s 3][s 4] | [s 2][s 6]  ->  [overload 12] | [s 2][s 6]
        # A loss of another kind ends the run, for its reason is told on its own.
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
            self.level = max(peak, self.level * 0.5 ** (taken / self.rate_hz / HALVED_S))
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
        # marks rise: the first that has taken `sample` samples or more came with the last of these
        i = bisect_left(self._marks, sample, key=lambda mark: mark[0])
        if not self._marks or i >= len(self._marks):
            return self._marks[-1][1] if self._marks else None
        return self._marks[i][1]

    def sample_at(self, at_16k: int) -> int:
        """Source sample index of a sample at 16 kHz of the current segment, clamped to the real samples."""
        if self.end_16k is not None:
            at_16k = min(at_16k, self.end_16k)
        return self.segment_first + (at_16k * self.rate_hz + ENGINE_RATE_HZ // 2) // ENGINE_RATE_HZ  # rounded
