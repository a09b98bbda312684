"""The server at a glance, as JSON and as CSV: for the page, for those that watch it, and for a spreadsheet."""

from __future__ import annotations

import csv
import getpass
import io
import os
import platform
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict

from kws_serve import __version__
from kws_serve.api.export import as_cell
from kws_serve.api.service import Service
from kws_serve.api.tokens import EVERYTHING, Grant
from kws_serve.api.views import stream_json
from kws_serve.backends.contract import devices
from kws_serve.messages import JsonObject
from kws_serve.wire import utc

STATUS_COLUMNS = ("name", "address", "device", "user", "note", "load", "streams", "state", "last_seen")
"""Of the CSV, in the order in which a list of machines is kept by hand."""


def readiness(service: Service) -> str:
    """What keeps the service from doing what it promises; empty: nothing."""
    if not service.runner.alive:
        return "engine stopped"
    if not service.log.durable:
        return f"event log not durable: {service.log.fault or 'the disk is slow'}"
    return ""


def status_json(service: Service, grant: Grant = EVERYTHING) -> JsonObject:
    """The server at a glance, as far as `grant` may see: where that is some streams only, what is of all is null."""
    engine = service.engine
    log = service.log
    streams = list(engine.streams.values())
    of_all = _of_all(service)
    if grant.streams is not None:
        of_all = dict.fromkeys(of_all) | {"boards": []}
    log_bytes, pending = of_all.pop("log_bytes"), of_all.pop("pending")
    return {
        "name": socket.gethostname(),
        "version": __version__,
        "address": service.address,
        "device": f"{platform.machine()} x{os.cpu_count()}, {platform.system()}",
        "user": _user(),
        "note": service.note,
        "state": "ON",
        "last_seen": utc(time.time()),
        "uptime_s": round(time.monotonic() - service.began_s, 1),
        "ready": not readiness(service),
        "scopes": sorted(grant.scopes),
        "log_id": log.log_id,
        "last_id": log.last_id if grant.streams is None else log.newest_id(grant.streams),
        "log": {"durable": log.durable, "fault": log.fault, "pending": pending, "bytes": log_bytes},
        "models": [{"name": m.spec.name, "backend": m.backend_name} for m in engine.loaded],
        "verifiers": [
            {"name": name, "backend": v.loaded.backend_name} for name, v in list(engine.proposals.verifiers.items())
        ],
        "sources": [asdict(source) for source in service.sources() if grant.may_touch(source.name)],
        "streams": [stream_json(engine, stream) for stream in streams if grant.may_touch(stream.name)],
        **of_all,
    }


def _of_all(service: Service) -> JsonObject:
    """What depends on every stream."""
    engine, log = service.engine, service.log
    received_s, processed_s, dropped_s = engine.totals_s()
    return {
        "load": round(os.getloadavg()[0], 2),
        "pending": log.pending,
        "log_bytes": log.used_bytes,
        "subscribers": len(service.subscribers),
        "engine_load": round(engine.load.share, 3),
        "unaccounted_samples": engine.unaccounted_samples,
        "rejected": sum(counts.rejected for counts in list(engine.proposals.counts.values())),
        "unverified": sum(counts.unverified for counts in list(engine.proposals.counts.values())),
        "boards": [state for device in devices(engine.loaded) for state in device.states()],
        "audio_s": {"received": received_s, "processed": processed_s, "dropped": dropped_s},
        "bad_samples": service.ingest.bad_samples,
        "clipped_samples": service.ingest.clipped_samples,
    }


def servers_json(service: Service, grant: Grant = EVERYTHING) -> list[JsonObject]:
    """Rows of STATUS_COLUMNS, `url` and `detail`: this server, then, for who may hear all streams, those that it
    watches.
    """
    status = status_json(service, grant)
    own = {column: status[column] for column in STATUS_COLUMNS}
    own |= {"streams": len(status["streams"]), "url": "", "detail": readiness(service)}
    return [own, *(service.watched() if grant.streams is None else ())]


def status_csv(rows: Sequence[JsonObject]) -> str:
    """Rows of servers; columns as in STATUS_COLUMNS."""
    out = io.StringIO()
    writer = csv.DictWriter(out, STATUS_COLUMNS, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({key: as_cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())
