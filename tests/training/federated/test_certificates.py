from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support import require

certificates = require("planish.training.federated.certificates")  # which needs cryptography
CertificateProblem, prepare = certificates.CertificateProblem, certificates.prepare

HOSTS = ("127.0.0.1", "localhost")


def test_openssl_trusts_what_was_made(tmp_path: Path) -> None:
    """A handshake over loopback by Python's own TLS, which knows nothing but the authority."""
    files = prepare(tmp_path, HOSTS)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(files.server, files.key)
    knowing = ssl.create_default_context(cafile=str(files.authority))
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as raw, serving.wrap_socket(raw, server_side=True) as stream:
                stream.sendall(b"hello")

        thread = threading.Thread(target=serve)
        thread.start()
        raw = socket.create_connection(listening.getsockname(), timeout=10)
        with knowing.wrap_socket(raw, server_hostname="127.0.0.1") as stream:
            assert stream.recv(5) == b"hello"
        thread.join()


def test_they_are_made_once_and_the_key_is_ones_own(tmp_path: Path) -> None:
    files = prepare(tmp_path / "deep", HOSTS)
    before = files.server.read_bytes()
    assert prepare(tmp_path / "deep", HOSTS).server.read_bytes() == before
    assert files.key.stat().st_mode & 0o077 == 0


class Later(datetime):
    """A clock that is days ahead, or behind."""

    days = 40

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) + timedelta(days=cls.days)


class Earlier(Later):
    days = -1


@pytest.mark.parametrize(("clock", "what"), [(Later, "expired on 20"), (Earlier, "holds from 20")])
def test_a_time_at_which_it_does_not_hold(
    clock: type[Later], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, HOSTS)
    monkeypatch.setattr(certificates, "datetime", clock)
    with pytest.raises(CertificateProblem, match=what) as told:
        prepare(tmp_path, HOSTS)
    assert "ca.pem" in told.value.where
    assert "delete" in told.value.hint


def torn(folder: Path) -> None:
    (folder / "server.pem").write_text("-----BEGIN")


def lost(folder: Path) -> None:
    (folder / "server.key").unlink()


def of_another(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        other = prepare(folder / "other", HOSTS)
        (folder / name).write_bytes((other.key.parent / name).read_bytes())

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (torn, "cannot read the certificates"),
        (lost, "cannot read the certificates"),
        (of_another("server.key"), "the key is not that of the server's certificate"),
        (of_another("ca.pem"), "not signed by the authority's"),
    ],
)
def test_what_clients_would_refuse(change: Callable[[Path], None], what: str, tmp_path: Path) -> None:
    prepare(tmp_path, HOSTS)
    change(tmp_path)
    with pytest.raises(CertificateProblem, match=what):
        prepare(tmp_path, HOSTS)


def test_another_host(tmp_path: Path) -> None:
    prepare(tmp_path, HOSTS)
    with pytest.raises(CertificateProblem, match=r"not of 10\.0\.0\.1"):
        prepare(tmp_path, ("10.0.0.1",))
