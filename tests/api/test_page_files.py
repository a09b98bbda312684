"""After an upgrade no browser goes on with the old page: its files are asked for again, and known by their content."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from kws_serve import app
from kws_serve.api import page as page_module
from kws_serve.manifest.package_data import data_path
from tests.support.live_server import live_server

FILES = sorted(p.relative_to(data_path("frontend")).as_posix() for p in data_path("frontend").rglob("*") if p.is_file())


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the page that the service serves instead."""
    shutil.copytree(data_path("frontend"), tmp_path / "page")
    monkeypatch.setattr(app, "data_path", lambda name: tmp_path / "page")
    return tmp_path / "page"


@pytest.fixture
def client(page: Path, level_model: Path) -> Iterator[httpx.Client]:
    with live_server([level_model]) as server, httpx.Client(base_url=server.http) as found:
        yield found


def test_each_file_is_asked_for_again_and_known_by_its_content(client):
    assert {"index.html", "main.js", "kws-client.js"} <= set(FILES)
    for path in ["", *FILES]:
        answer = client.get(f"/{path}")
        assert answer.headers["cache-control"] == "no-cache", path
        assert "last-modified" not in answer.headers
        again = client.get(f"/{path}", headers={"If-None-Match": f'W/{answer.headers["etag"]}, "x"'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])
        assert again.headers["cache-control"] == "no-cache"
        assert client.get(f"/{path}", headers={"If-None-Match": '"x"'}).content == answer.content


def test_an_upgrade_that_changes_no_time_and_no_size_is_seen(client, page):
    """As from a wheel, whose files all have one time."""
    file = page / "main.js"
    old, was = client.get("/main.js"), file.stat()
    file.write_bytes(file.read_bytes().replace(b"KwsClient", b"KwsClienT", 1))
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    for headers in (
        {"If-None-Match": old.headers["etag"]},
        {"If-Modified-Since": "Fri, 31 Dec 2100 00:00:00 GMT"},
    ):
        new = client.get("/main.js", headers=headers)
        assert new.status_code == 200
        assert b"KwsClienT" in new.content


def test_an_upgrade_in_the_midst_of_an_answer_gives_no_digest_of_another_content(client, page, monkeypatch):
    def upgraded_meanwhile(content: bytes) -> object:
        (page / "main.js").write_bytes(b"// new")
        return hashlib.sha256(content)

    with monkeypatch.context() as upgrading:
        upgrading.setattr(page_module, "hashlib", SimpleNamespace(sha256=upgraded_meanwhile))
        answer = client.get("/main.js")
    assert answer.headers["etag"].strip('"') == hashlib.sha256(answer.content).hexdigest()[:32]


def test_what_is_no_file_of_the_page_is_not_kept(client):
    for path in ("/nothing.js", "/v1/status", "/healthz"):
        assert client.get(path).headers["cache-control"] == "no-store"
