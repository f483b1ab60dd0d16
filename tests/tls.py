"""Servers of a test's own that are spoken to by TLS: with a certificate authority, and certificates of the server and
of a client, that are made for the test."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from compose.native import own, place, stack
from compose.native.processes import Process
from compose.native.server import Recipe, Site
from tests.stack import absent

Key = ec.EllipticCurvePrivateKey


class Authority:
    """It signs; its own certificate is in `folder`, as `ca.pem`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("polystore tests")
        self.ca = self._written("ca", self._signed(self._name, self._key.public_key(), authority=True), None)

    def issue(self, name: str) -> tuple[Path, Path]:
        """The files of a certificate for 127.0.0.1, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._written(name, self._signed(_name(name), key.public_key(), authority=False), key), (
            self.folder / f"{name}.key"
        )

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(place.HOST))])
        made = x509.CertificateBuilder(self._name, name, key, x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        return made.add_extension(addresses, critical=False).sign(self._key, hashes.SHA256())

    def _written(self, name: str, certificate: x509.Certificate, key: Key | None) -> Path:
        file = self.folder / f"{name}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        if key is not None:
            form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            (self.folder / f"{name}.key").write_bytes(key.private_bytes(*form))
        return file


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


Given = Callable[[Path, Path, Path], Sequence[str]]
"""The server's options, of the files of the authority, of the certificate and of the key."""
OPTIONS: dict[str, Given] = {
    "mariadb": lambda ca, pem, key: [f"--ssl-ca={ca}", f"--ssl-cert={pem}", f"--ssl-key={key}"],
    "mysql": lambda ca, pem, key: [f"--ssl-ca={ca}", f"--ssl-cert={pem}", f"--ssl-key={key}"],
    "redis": lambda ca, pem, key: [
        *("--tls-ca-cert-file", str(ca), "--tls-cert-file", str(pem), "--tls-key-file", str(key)),
        *("--port", "0", "--tls-auth-clients", "yes"),
    ],
    "postgresql": lambda ca, pem, key: [
        *("-c", "ssl=on", "-c", f"ssl_ca_file={ca}", "-c", f"ssl_cert_file={pem}", "-c", f"ssl_key_file={key}"),
        *("-c", f"hba_file={ca.with_name('hba.conf')}"),
    ],
    "mongodb": lambda ca, pem, key: [
        *(f"--listen-tls-ca-file={ca}", f"--listen-tls-cert-file={pem}", f"--listen-tls-key-file={key}"),
        "--listen-addr=",
    ],
}
LISTENS: dict[str, Callable[[int], Sequence[str]]] = {
    "redis": lambda port: ["--tls-port", str(port)],
    "mongodb": lambda port: [f"--listen-tls={place.HOST}:{port}"],
}
"""Of servers that answer nobody who does not come by TLS: their port."""
BEHIND = {"mongodb": "postgres"}
"""Processes to which only another one of the same server speaks."""
HBA = "hostssl private all all scram-sha-256 clientcert=verify-ca\nhost postgres,polystore all all scram-sha-256\n"
"""The database `private` is for those who come by TLS with a certificate."""


@contextmanager
def tls_server(name: str, authority: Authority) -> Generator[own.OwnServer]:
    """As `own_server`, with TLS."""
    recipe = stack.RECIPES[name]
    pem, key = authority.issue("server")

    def configure(site: Site) -> None:
        recipe.configure(site)
        (site.store / "hba.conf").write_text(HBA)
        for file in (authority.ca, pem, key):
            copy = site.store / file.name
            copy.write_bytes(file.read_bytes())
            copy.chmod(0o600)
        if (uid := place.unprivileged()) is not None:
            for name_of_one in (authority.ca.name, pem.name, key.name, "hba.conf"):
                os.chown(site.store / name_of_one, uid, uid)

    def processes(site: Site) -> list[Process]:
        given = OPTIONS[name](*(site.store / file.name for file in (authority.ca, pem, key)))
        behind = BEHIND.get(name)
        return [
            one if one.name == behind else _secured(one, given, site.port, LISTENS.get(name))
            for one in recipe.processes(site)
        ]

    secured: Recipe = dataclasses.replace(recipe, configure=configure, processes=processes)
    try:
        with own.own(secured) as mine:
            yield mine
    except own.NotBuilt as error:
        absent(name, str(error))


def _secured(
    process: Process, options: Sequence[str], port: int, listens: Callable[[int], Sequence[str]] | None
) -> Process:
    command = [*process.command, *options]
    if listens is None:
        return dataclasses.replace(process, command=command)
    ready = lambda: place.answers(port)  # noqa: E731
    return dataclasses.replace(process, command=[*command, *listens(port)], ready=ready)
