"""Certificates for the server's tests, made by `openssl` once per session."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.net.certificates import Identity, identity

__all__ = ["Identity", "Signed", "identity", "signed"]

CURVE = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


@dataclass(frozen=True)
class Signed:
    """A certificate that an authority has signed."""

    certificate: str
    key: str
    authority: str


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def signed(place: Path, subject: str) -> Signed:
    """A client's certificate, and the authority that it comes from."""
    authority, authority_key = f"{place}/authority.pem", f"{place}/authority.key"
    openssl(
        *("req", "-x509", "-newkey", *CURVE, "-nodes", "-keyout", authority_key),
        *("-out", authority, "-days", "2", "-subj", "/CN=authority"),
    )
    certificate, key, request = f"{place}/c.pem", f"{place}/c.key", f"{place}/c.req"
    openssl(
        *("req", "-newkey", *CURVE, "-nodes", "-keyout", key, "-out", request),
        *("-subj", subject, "-addext", "extendedKeyUsage=clientAuth"),
    )
    openssl(
        *("x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key),
        *("-CAcreateserial", "-days", "2", "-out", certificate, "-copy_extensions", "copy"),
    )
    return Signed(certificate, key, authority)
