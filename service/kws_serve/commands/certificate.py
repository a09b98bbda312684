"""The service's own certificate and key, looked at before they serve."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

from kws_serve.messages import KwsError

_PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


def certificate_only(cert: Path) -> ssl.SSLContext:
    """For connections to a server that shows the first certificate of this file, by any name. Raises KwsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is this very certificate that is wanted
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        found = _PEM.search(cert.read_text(errors="replace"))
        context.load_verify_locations(cadata=found[0] if found else "")
    except (OSError, ValueError) as e:
        raise KwsError(f"--tls-cert: found {cert} unfit ({e}), wanted a certificate in PEM") from None
    return context


def check_certificate(cert: Path | None, key: Path | None) -> None:
    """Both files or none, and readable as what they should be, without a passphrase. Raises KwsError."""
    if (cert is None) != (key is None):
        missing, given = ("--tls-cert", "--tls-key") if cert is None else ("--tls-key", "--tls-cert")
        raise KwsError(f"{missing}: found none beside {given}, wanted both")
    if cert is None or key is None:
        return
    asked = []

    def passphrase() -> str:  # OpenSSL would ask at the terminal
        asked.append(True)
        return ""

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, passphrase)
    except ssl.SSLError as e:
        if asked:
            raise KwsError(
                f"--tls-key: found {key} encrypted, wanted one without a passphrase, that only the service can read: "
                f"openssl pkey -in {key} -out PLAIN"
            ) from None
        raise KwsError(f"--tls-cert, --tls-key: found {cert}, {key} unfit ({e.reason or e}), wanted PEM") from None
    except OSError as e:
        raise KwsError(f"--tls-cert, --tls-key: cannot read {e.filename or cert} ({e.strerror})") from None
