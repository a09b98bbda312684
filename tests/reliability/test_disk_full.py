"""FIELD 7: a full disk, on a real small file system: detections go on, nothing is given twice, holes are told."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kws_serve.sinks import waiting
from kws_serve.sinks.event_log import EventLog
from tests.api.test_streams import say
from tests.sinks.test_event_log import detection, ids, replayed
from tests.support.service import Service, running

pytestmark = pytest.mark.optional  # where mounting is not allowed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs to be allowed to mount a file system (root)")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Not one byte is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(b"x" * 4096)
    return path


def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be")


def publish(log: EventLog, first: int, last: int) -> list:
    """Detections `first` to `last`, one batch each ten; what was pushed."""
    pushed: list = []
    log.on_commit = pushed.extend
    for at in range(first, last + 1, 10):
        log.publish([detection(i) for i in range(at, min(at + 10, last + 1))])
        assert log.flush(10)
    return pushed


def integrity(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA integrity_check").fetchone()[0]


def test_detections_go_on_and_are_written_when_there_is_room(small_disk):
    log = EventLog(small_disk / "events.db")
    publish(log, 1, 50)
    filler = fill(small_disk)
    pushed = publish(log, 51, 1500)
    assert [d.id for d in pushed] == list(range(51, 1501))  # every one, in order, whatever the disk does
    lost_at = next(i for i, d in enumerate(pushed) if not d.durable)
    assert not any(d.durable for d in pushed[lost_at:])
    assert not log.durable
    assert "full" in log.fault
    assert ids(log) == list(range(1, 1501))  # what waits in memory is read too
    assert replayed(log)[-1]["id"] == 1500
    filler.unlink()
    until(lambda: log.durable)
    assert log.pending == 0
    assert [d.durable for d in publish(log, 1501, 1510)] == [True] * 10
    log.close()
    again = EventLog(small_disk / "events.db")
    assert ids(again) == list(range(1, 1511))
    assert not [m for m in replayed(again) if m["type"] == "log_gap"]
    again.close()
    assert integrity(small_disk / "events.db") == "ok"


def test_beyond_what_memory_keeps_the_rest_is_a_told_gap(small_disk, monkeypatch):
    monkeypatch.setattr(waiting, "WAITING", 100)
    log = EventLog(small_disk / "events.db")
    filler = fill(small_disk)
    pushed = publish(log, 1, 1000)
    n = sum(d.durable for d in pushed)
    during = replayed(log)
    gap = {"type": "log_gap", "from": n + 1, "to": 900, "reason": "not_durable"}
    assert [m for m in during if m["type"] == "log_gap"] == [gap]
    filler.unlink()
    until(lambda: log.durable)
    assert ids(log) == [*range(1, n + 1), *range(901, 1001)]
    after = replayed(log)
    assert [m for m in after if m["type"] == "log_gap"] == [gap]
    assert [m.get("id", m.get("from")) for m in after] == [*range(1, n + 1), n + 1, *range(901, 1001)]
    log.close()


async def test_the_service_on_a_full_disk_and_killed_there(level_model, small_disk, free_port):
    """It hears on, says that it is not ready, and gives no id twice after kill -9."""
    service = Service(level_model.parent, free_port, small_disk / "state")
    service.stderr = small_disk.with_name("stderr")
    with running(service):
        before = [m for m in await say(service, "a", 3) if m["type"] == "detection"]
        filler = fill(small_disk)
        said = []
        for _ in range(40):
            said += [m for m in await say(service, "a", 10) if m["type"] == "detection"]
            if not said[-1]["durable"]:
                break
        assert [m["id"] for m in before + said] == list(range(1, len(before + said) + 1))
        assert not said[-1]["durable"]
        ready = httpx.get(f"{service.http}/readyz")
        assert ready.status_code == 503
        assert "not durable" in ready.json()["status"]
        assert httpx.get(f"{service.http}/healthz").status_code == 200
        status = service.status()
        assert (status["ready"], status["log"]["durable"]) == (False, False)
        service.kill()
        service.start()  # on the full disk
        filler.unlink()
        new = [m for m in await say(service, "b", 2) if m["type"] == "detection"]
        assert {m["id"] for m in new}.isdisjoint({m["id"] for m in before + said})
        assert len(new) == 2
        page = httpx.get(f"{service.http}/v1/detections?limit=1000").json()["items"]
        assert service.terminate() == 0
    assert [d["id"] for d in page if d["stream"] == "b"] == [m["id"] for m in new]
    assert service.integrity() == "ok"
