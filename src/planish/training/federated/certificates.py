"""Certificates of a federation's server: made where there are none, and checked before anything starts."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from planish.errors import UserError

DAYS = 30


class CertificateProblem(UserError):
    """A certificate that clients would refuse."""


@dataclass(frozen=True)
class Certificates:
    """Files of a server.

    Attributes:
        authority: The certificate by which clients know the server's; all that they need.
        server: The server's certificate.
        key: Its private key.
    """

    authority: Path
    server: Path
    key: Path


def prepare(folder: str | os.PathLike[str], hosts: Sequence[str], days: int = DAYS) -> Certificates:
    """The certificates of a folder, made if it has none.

    Args:
        folder: Holds `ca.pem`, `server.pem` and `server.key`.
        hosts: Names and addresses at which clients reach the server.
        days: How long new ones hold.

    Raises:
        CertificateProblem: One is missing, damaged, expired, or not of these hosts.
    """
    place = Path(folder)
    found = Certificates(place / "ca.pem", place / "server.pem", place / "server.key")
    if not any(path.exists() for path in (found.authority, found.server, found.key)):
        _make(found, hosts, days)
    _check(found, hosts)
    return found


def _make(files: Certificates, hosts: Sequence[str], days: int) -> None:
    now = datetime.now(UTC)
    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Planish federation")])

    def begun(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number())
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key())
        made = made.add_extension(known, critical=False)
        return made.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=days))

    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    authority = begun(name, root).add_extension(x509.BasicConstraints(True, 0), critical=True)
    authority = authority.add_extension(signs, critical=True).sign(root, hashes.SHA256())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    server = begun(subject, own).add_extension(x509.BasicConstraints(False, None), critical=True)
    server = server.add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
    serves = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    server = server.add_extension(serves, critical=False).sign(root, hashes.SHA256())
    secret = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        files.key.parent.mkdir(parents=True, exist_ok=True)
        files.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
        files.server.write_bytes(server.public_bytes(serialization.Encoding.PEM))
        with os.fdopen(os.open(files.key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(secret)
    except OSError as error:
        raise UserError(f"cannot write certificates: {error.strerror}", str(files.key.parent), "--run DIR") from error


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _check(files: Certificates, hosts: Sequence[str]) -> None:
    hint = f"delete {files.server.parent}, and new ones are made"
    try:
        authority, server = (x509.load_pem_x509_certificate(p.read_bytes()) for p in (files.authority, files.server))
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise CertificateProblem(f"cannot read the certificates: {error}", str(files.server.parent), hint) from error
    now = datetime.now(UTC)
    for path, each in ((files.authority, authority), (files.server, server)):
        if now > each.not_valid_after_utc:
            raise CertificateProblem(f"the certificate expired on {each.not_valid_after_utc:%Y-%m-%d}", str(path), hint)
        if now < each.not_valid_before_utc:
            raise CertificateProblem(
                f"the certificate holds from {each.not_valid_before_utc:%Y-%m-%d} on", str(path), hint
            )
    try:
        server.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificateProblem(
            "the server's certificate is not signed by the authority's", str(files.server), hint
        ) from error
    if server.public_key() != key.public_key():
        raise CertificateProblem("the key is not that of the server's certificate", str(files.key), hint)
    named = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if lost := [host for host in hosts if _name(host) not in named]:
        raise CertificateProblem(f"the certificate is not of {lost[0]}", str(files.server), hint)
