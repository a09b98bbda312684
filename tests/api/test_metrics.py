"""`/metrics`, read with Prometheus's own parsers."""

from __future__ import annotations

import json
import math

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, openmetrics
from prometheus_client import parser as text
from prometheus_client.openmetrics import parser as openmetrics_parser
from websockets.sync.client import connect

from kws_serve import __version__
from kws_serve.api.metrics import exposition, make_registry

TYPES = {
    "kws_build_info": "gauge",
    "kws_streams_active": "gauge",
    "kws_subscribers_active": "gauge",
    "kws_audio_received_seconds": "counter",
    "kws_audio_dropped_seconds": "counter",
    "kws_audio_processed_seconds": "counter",
    "kws_audio_unaccounted_samples": "gauge",
    "kws_stream_lag_seconds": "gauge",
    "kws_engine_load": "gauge",
    "kws_log_durable": "gauge",
    "kws_log_pending": "gauge",
    "kws_detections": "counter",
    "kws_patches_failed": "counter",
    "kws_proposals": "counter",
    "kws_audio_bad_samples": "counter",
    "kws_refused": "counter",
    "kws_detection_latency_seconds": "histogram",
}
"""Families, as Prometheus's parser names them: a counter's sample ends in _total. Dashboards lean on them."""

LABELS = {
    "kws_build_info": {"version"},
    "kws_audio_dropped_seconds_total": {"reason"},
    "kws_detections_total": {"model", "label"},
    "kws_patches_failed_total": {"model"},
    "kws_proposals_total": {"model", "outcome"},
    "kws_audio_bad_samples_total": {"kind"},
    "kws_refused_total": {"kind"},
    "kws_detection_latency_seconds_bucket": {"le"},
}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def scraped(server, accept: str | None = None) -> tuple[dict, dict]:
    """The families' types, and the values by (sample, labels), of one scrape."""
    answer = httpx.get(f"{server.http}/metrics", headers={"accept": accept} if accept else {})
    assert answer.status_code == 200
    assert answer.headers["vary"] == "accept"
    kind = answer.headers["content-type"]
    parser = openmetrics_parser if kind.startswith("application/openmetrics-text; version=1.0.0") else text
    assert parser is openmetrics_parser or kind == "text/plain; version=0.0.4; charset=utf-8"
    families = list(parser.text_string_to_metric_families(answer.text))
    values = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}
    return {f.name: f.type for f in families}, values


def test_names_types_and_labels_stay(server):
    types, values = scraped(server)
    assert types == TYPES
    for name, labels in values:
        assert dict(labels).keys() == LABELS.get(name, set()), name
    assert values["kws_build_info", (("version", __version__),)] == 1
    assert values["kws_log_durable", ()] == 1
    assert values["kws_audio_unaccounted_samples", ()] == 0
    assert values["kws_patches_failed_total", (("model", "level"),)] == 0


def test_openmetrics_is_given_to_those_who_ask(server):
    types, values = scraped(server, f"{OPENMETRICS}, text/plain; q=0.5")
    wanted = {("kws_build" if name == "kws_build_info" else name): kind for name, kind in TYPES.items()}
    assert types == {**wanted, "kws_build": "info"}
    assert values.keys() - {("kws_engine_load", ())} == scraped(server)[1].keys() - {("kws_engine_load", ())}


def test_a_stream_and_its_detection_are_counted(server):
    before = scraped(server)[1]
    with connect(f"{server.ws}/v1/audio?stream=counted&rate=16000&format=s16le") as ws:
        ready = json.loads(ws.recv())
        assert ready["type"] == "ready"
        assert scraped(server)[1]["kws_streams_active", ()] == before["kws_streams_active", ()] + 1
        audio = np.zeros(16000, "<i2")
        audio[4000:8000] = 20000
        for part in np.split(audio, 10):
            ws.send(part.tobytes())
        ws.send('{"type": "end"}')
        kinds = [json.loads(message)["type"] for message in ws]
    assert "detection" in kinds
    after = scraped(server)[1]
    grown = {key: after[key] - before.get(key, 0) for key in after}
    assert grown["kws_audio_received_seconds_total", ()] == pytest.approx(1)
    assert grown["kws_audio_processed_seconds_total", ()] == pytest.approx(1)
    assert grown["kws_detections_total", (("label", "loud"), ("model", "level"))] == 1
    assert grown["kws_detection_latency_seconds_count", ()] == 1
    assert grown["kws_detection_latency_seconds_bucket", (("le", "+Inf"),)] == 1
    buckets = [(float(dict(labels)["le"]), n) for (name, labels), n in after.items() if name.endswith("_bucket")]
    assert buckets == sorted(buckets), "cumulative"
    assert buckets[-1][0] == math.inf


def test_a_large_count_is_told_to_the_last_digit(server):
    ingest = server.app.state.service.ingest
    ingest.clipped_samples += 123456789
    assert scraped(server)[1]["kws_audio_bad_samples_total", (("kind", "clipped"),)] == ingest.clipped_samples
    ingest.clipped_samples -= 123456789


def test_nothing_of_the_library_is_registered_globally(server):
    names = {family.name for family in make_registry(server.app.state.service).collect()}
    assert all(name.startswith("kws_") for name in names)
    from prometheus_client import REGISTRY

    assert not any(family.name.startswith("kws_") for family in REGISTRY.collect())


@pytest.mark.parametrize("accept", [
    "text/plain; version=x", "application/openmetrics-text; version=x", "application/openmetrics-text; version=1.0.0.x",
    "text/plain; version=1.0.0; escaping=x", "text/plain;version=", "application/openmetrics-text;version=9;escaping=",
])  # fmt: skip
def test_an_odd_accept_gets_an_answer_too(server, accept):
    answer = httpx.get(f"{server.http}/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert "kws_streams_active" in answer.text


_PART = st.sampled_from(
    ["text/plain", "application/openmetrics-text", "version=", "escaping=", "1.0.0", "0.0.4", "2", "x", "underscores",
     "allow-utf-8", ";", ",", "=", " ", "*/*", "q=0.5", "."]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(_PART, max_size=12).map("".join)))
def test_any_accept_is_understood_or_ignored(accept):
    body, content_type = exposition(CollectorRegistry(), accept)
    assert body in (b"", b"# EOF\n")
    assert content_type.startswith(("text/plain; version=", openmetrics.exposition.CONTENT_TYPE_LATEST.split(";")[0]))
