"""`GET /metrics`: what Prometheus reads, taken from the running parts at each scrape by prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from kws_serve import __version__
from kws_serve.api.service import Service

_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Upper edges of the latency histogram, in s: around the 20 ms between two ticks, up to where audio is dropped."""


def make_registry(service: Service) -> CollectorRegistry:
    """A registry of this service alone: the library's global one, with facts of the process, is not shown."""
    registry = CollectorRegistry(auto_describe=False)  # which would scrape now, before there is a server
    registry.register(_ServiceCollector(service))
    return registry


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The body and its content type: OpenMetrics where the header `Accept` asks for it, else Prometheus's text."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


class _ServiceCollector(Collector):
    """Nothing is counted here: the parts count, a scrape reads."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Every family, with the values of this moment."""
        yield InfoMetricFamily("kws_build", "Version of the service.", {"version": __version__})
        yield from self._audio()
        yield from self._engine()
        yield from self._log()

    def _audio(self) -> Iterator[Metric]:
        engine, ingest = self._service.engine, self._service.ingest
        received_s, processed_s, dropped_s = engine.totals_s()
        yield GaugeMetricFamily("kws_streams_active", "Open streams.", len(engine.streams))
        yield CounterMetricFamily("kws_audio_received_seconds", "Audio received.", received_s)
        yield CounterMetricFamily("kws_audio_processed_seconds", "Audio processed.", processed_s)
        dropped = CounterMetricFamily("kws_audio_dropped_seconds", "Audio dropped.", labels=("reason",))
        dropped.add_metric(("overload_or_source",), dropped_s)
        yield dropped
        text = "Samples received that were not a number or outside [-1, 1]."
        bad = CounterMetricFamily("kws_audio_bad_samples", text, labels=("kind",))
        bad.add_metric(("nan",), ingest.bad_samples)
        bad.add_metric(("clipped",), ingest.clipped_samples)
        yield bad
        text = "Refused because a client had too many already, or came too often."
        refused = CounterMetricFamily("kws_refused", text, labels=("kind",))
        refused.add_metric(("viewers",), self._service.viewers.refused)
        refused.add_metric(("subscribers",), self._service.subscribers.refused)
        refused.add_metric(("openings",), ingest.refused_openings)
        yield refused

    def _engine(self) -> Iterator[Metric]:
        engine = self._service.engine
        text = "Received - processed - dropped - buffered: always 0."
        yield GaugeMetricFamily("kws_audio_unaccounted_samples", text, engine.unaccounted_samples)
        yield GaugeMetricFamily("kws_stream_lag_seconds", "Audio waiting in the stream that lags most.", engine.lag_s)
        yield GaugeMetricFamily("kws_engine_load", "Share of the last seconds in which it was busy.", engine.load.share)
        failed = CounterMetricFamily("kws_patches_failed", "Patches a broken model lost.", labels=("model",))
        for model in (model for lane in engine.lanes for model in lane.models):
            failed.add_metric((model.name,), model.failed_patches)
        yield failed
        text = "What models with verify or armed_by proposed; unverified: told, though the verifier failed or was late."
        proposed = CounterMetricFamily("kws_proposals", text, labels=("model", "outcome"))
        for name, counts in list(engine.proposals.counts.items()):
            for outcome in ("verified", "rejected", "unverified", "not_armed"):
                proposed.add_metric((name, outcome), getattr(counts, outcome))
        yield proposed

    def _log(self) -> Iterator[Metric]:
        log = self._service.log
        yield GaugeMetricFamily("kws_subscribers_active", "Subscribers to detections.", len(self._service.subscribers))
        text = "Whether detections are on the disk before they are pushed."
        yield GaugeMetricFamily("kws_log_durable", text, log.durable)
        yield GaugeMetricFamily("kws_log_pending", "Detections that wait for the disk.", log.pending)
        detections = CounterMetricFamily("kws_detections", "Detections.", labels=("model", "label"))
        for key, n in sorted(log.counts.items()):
            detections.add_metric(key, n)
        yield detections
        counts, total_s, n = log.latency_buckets(_BUCKETS_S)
        buckets = [*zip(map(str, _BUCKETS_S), counts, strict=True), ("+Inf", n)]
        text = "From the deciding sample's arrival to the log."
        yield HistogramMetricFamily("kws_detection_latency_seconds", text, buckets, total_s)
