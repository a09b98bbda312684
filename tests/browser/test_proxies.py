"""The page in Chromium behind nginx, under a path, with TLS: what its modules, its requests and its socket send."""

from __future__ import annotations

import pytest

from tests.support.certificate import self_signed, spki_sha256
from tests.support.live_server import live_server
from tests.support.reverse_proxy import NAME, SUB_PATH, reverse_proxy
from tests.support.tiny_model import write_level_model

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_page_is_live_and_changes_settings(pages, tmp_path, free_port, tls):
    certificate = self_signed(tmp_path, f"DNS:{NAME}") if tls else None
    url = f"http{'s' if tls else ''}://{NAME}:{free_port}{SUB_PATH}"
    flags = [f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
    flags += [f"--ignore-certificate-errors-spki-list={spki_sha256(certificate[1])}"] if certificate else []
    with (
        live_server([write_level_model(tmp_path)], public_urls=(url,), insecure=True) as server,
        reverse_proxy("nginx", tmp_path, free_port, server.server.port, SUB_PATH, certificate),
    ):
        page = pages.open(url.rstrip("/"), flags=flags)
        page.wait_for_function("() => document.querySelector('#connection').innerText === 'Connected'")
        changed = page.evaluate(
            "fetch('v1/models/level/detection', {method: 'PATCH', body: '{}'}).then(answer => answer.status)"
        )
        assert changed == 200
    assert [c for c in pages.faults if "Cross-Origin-Opener-Policy" not in c] == []  # not for http by name
