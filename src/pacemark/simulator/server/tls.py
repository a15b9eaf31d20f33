"""TLS with a certificate of the endpoint's own making."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from ipaddress import ip_address
from pathlib import Path

from pacemark.errors import BadInput

__all__ = ["make_certificate", "server_context"]


def make_certificate(folder: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """Write a self-signed certificate for `host` and localhost, valid for two days, and its key into `folder`.

    The `openssl` command makes them: nothing that pacemark depends on can, and it is on nearly every machine that
    has Python. Raises BadInput where it is missing or fails.
    """
    command = shutil.which("openssl")
    if command is None:
        raise BadInput(
            "TLS needs the openssl command to make a certificate; install it, or give --certfile and --keyfile"
        )
    try:
        name = f"IP:{ip_address(host)}"
    except ValueError:
        name = f"DNS:{host}"
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    arguments = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    arguments += ["-subj", "/CN=pacemark simulator", "-addext", f"subjectAltName=DNS:localhost,IP:127.0.0.1,{name}"]
    done = subprocess.run(
        [command, *arguments, "-keyout", str(key), "-out", str(certificate)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadInput(f"openssl could not make a certificate: {reason}")
    return certificate, key


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context that presents `certificate`. Raises BadInput where the files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"cannot use certificate {certificate} with key {key}: {error}") from None
    return context
