"""A certificate authority and what it signs, by OpenSSL's command line."""

from __future__ import annotations

import subprocess
from pathlib import Path


def authority(folder: Path, name: str = "ca") -> Path:
    """Make an authority and return its certificate's file; the key lies beside it."""
    certificate = folder / f"{name}.pem"
    _openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-keyout", folder / f"{name}.key", "-out", certificate,
        "-addext", "basicConstraints=critical,CA:TRUE",
    )  # fmt: skip
    return certificate


def signed(folder: Path, ca: Path, name: str) -> tuple[Path, Path]:
    """Return the files of a certificate for `name` and localhost, and of its key."""
    key, request, certificate = (folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
    names = folder / f"{name}.ext"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    _openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
        "-keyout", key, "-out", request,
    )  # fmt: skip
    _openssl(
        "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca.with_suffix(".key"),
        "-CAcreateserial", "-days", "2", "-extfile", names, "-out", certificate,
    )  # fmt: skip
    return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
