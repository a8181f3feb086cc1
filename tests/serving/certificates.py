"""Certificates for tests, made by openssl: an authority, and what it has signed."""

import shutil
import subprocess

import pytest

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="makes certificates with openssl")


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_authority(folder, name="ca"):
    """`(certificate, key)` of an authority."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl("req", "-x509", *curve, "-keyout", key, "-out", cert, "-days", 2, "-subj", f"/CN={name}")
    return cert, key


def sign(folder, authority, name):
    """`(certificate, key)` of `name`, good for localhost."""
    cert, key, request = folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.csr"
    extensions = folder / f"{name}.ext"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl("req", *curve, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    ca, ca_key = authority
    signing = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", 2, "-extfile", extensions)
    _openssl("x509", "-req", "-in", request, *signing, "-out", cert)
    return cert, key
