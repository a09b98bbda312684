"""The Python client, and the watcher, through TLS: a certificate is verified unless the caller brings a context."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from kws_serve.client import KwsClient
from kws_serve.host.watch import StatusError, get_json
from tests.support.certificate import self_signed
from tests.support.live_server import LiveServer, live_server
from tests.support.streams import expected, words

TOKEN = "a-token-that-only-the-tests-know"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(level_model: Path, certificate: tuple[Path, Path]) -> Iterator[LiveServer]:
    with live_server([level_model], token=TOKEN, tls=certificate) as running:
        yield running


@pytest.fixture
def trusted(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine trusts the certificate, as if it were installed."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))


@pytest.mark.parametrize("scheme", ["https", "wss"])
@pytest.mark.usefixtures("trusted")
async def test_audio_and_detections_through_tls_verified_by_default(secure, level_model, scheme):
    audio = words(1.5)
    wanted = expected(level_model, audio)
    async with KwsClient(f"{scheme}://{secure.host}", token=TOKEN) as client:
        after = secure.log.last_id
        async with client.audio(scheme) as sender:
            await sender.send(audio)
            await sender.end()
            heard = [m async for m in sender]
        found = []
        async with asyncio.timeout(10):
            async for detection in client.detections(after=after):
                found.append((detection["label"], detection["start_sample"]))
                if len(found) == len(wanted):
                    break
    assert heard[-1] == {"type": "done", "samples": len(audio)}
    assert found == wanted


async def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(secure):
    """Nothing is sent, no token either, and it is not tried for ever."""
    async with KwsClient(secure.http, token=TOKEN) as client, asyncio.timeout(10):
        with pytest.raises(ssl.SSLCertVerificationError):
            await anext(client.detections())
        with pytest.raises(ssl.SSLCertVerificationError):
            async with client.audio("a"):
                pass


async def test_a_trusted_certificate_of_another_name_is_refused(level_model, tmp_path, monkeypatch):
    elsewhere = self_signed(tmp_path, "DNS:elsewhere")
    monkeypatch.setenv("SSL_CERT_FILE", str(elsewhere[0]))
    with live_server([level_model], token=TOKEN, tls=elsewhere) as server:
        async with KwsClient(server.http, token=TOKEN) as client, asyncio.timeout(10):
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                await anext(client.detections())


async def test_a_context_of_the_callers_own(secure, certificate):
    trusting = ssl.create_default_context(cafile=certificate[0])
    async with KwsClient(secure.http, token=TOKEN, ssl=trusting) as client, client.audio("own") as sender:
        assert sender.ready["stream"] == "own"


async def test_a_context_without_tls_is_a_mistake():
    with pytest.raises(ValueError, match="ssl: found a context for 'http://a', wanted https"):
        KwsClient("http://a", ssl=ssl.create_default_context())


@pytest.mark.usefixtures("trusted")
def test_a_watched_server_through_tls(secure):
    assert get_json(secure.http, "/v1/servers", TOKEN)["items"][0]["state"] == "ON"


def test_a_watched_server_without_a_trusted_certificate_is_not_told_the_token(secure):
    with pytest.raises(StatusError, match="verify failed"):
        get_json(secure.http, "/v1/servers", TOKEN)
