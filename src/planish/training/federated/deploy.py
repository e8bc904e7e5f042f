"""A real federation on this machine: Flower's SuperLink and SuperNodes, which speak TLS over loopback.

The app that they run is two lines: it imports the server's and the client's app from a module that the caller names,
which reads what it needs from the environment. On other machines the same SuperNode command joins.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from planish.errors import EngineError, MissingExtra
from planish.training.federated.certificates import Certificates, prepare
from planish.training.federated.flower import CLIENT

HOST = "127.0.0.1"
ENVIRONMENT = "PLANISH_FEDERATION"
"""The variable that says where the description of a federation is."""
_APP = """\
[project]
name = "planish-federation"
version = "1.0.0"
description = "A federation that planish federate started"
license = {{ text = "Apache-2.0" }}
dependencies = []

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.flwr.app]
publisher = "planish"

[tool.flwr.app.components]
serverapp = "federation.app:server"
clientapp = "federation.app:client"
"""
_PARTS = """\
from {module} import client_app, server_app

server = server_app()
client = client_app()
"""


@dataclass(frozen=True)
class Deployment:
    """Processes that make up a federation.

    Args:
        folder: Where logs, certificates and Flower's own files go.
        module: Has `server_app()` and `client_app()`.
        description: The file that the module reads.
        clients: SuperNodes to start.
        certificates: Folder of certificates; None takes one in `folder`.
    """

    folder: Path
    module: str
    description: Path
    clients: int
    certificates: Path | None = None

    def run(self, is_over: Callable[[], bool], timeout: float) -> None:
        """Start everything, submit the app, wait until `is_over`, and end what was started.

        Raises:
            CertificateProblem: Clients would refuse the server's certificate; nothing was started.
            EngineError: A process ended, or time is up; names its log.
        """
        folder = self.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        files = prepare((self.certificates or folder / "certificates").resolve(), (HOST, "localhost"))
        port, *ports = _free_ports(1 + self.clients)
        self._write_app(folder / "app", folder / "home", files, port)
        environment = {
            **os.environ,
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            ENVIRONMENT: str(self.description.resolve()),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        }
        with _processes(folder, environment) as start:
            running = [start("superlink", *_superlink(files, port))]
            _wait_for(port, running, timeout=60)
            running += [
                start(f"supernode-{number}", *_supernode(files, port, own, number, self.clients))
                for number, own in enumerate(ports)
            ]
            submitted = start("submit", "flwr", "run", str(folder / "app"), "planish")
            if submitted.process.wait(timeout=60):
                raise EngineError("the app was not accepted", str(submitted.log), submitted.last())
            _wait(is_over, running, timeout)

    def _write_app(self, app: Path, home: Path, files: Certificates, port: int) -> None:
        shutil.rmtree(app, ignore_errors=True)
        (app / "federation").mkdir(parents=True)
        (app / "pyproject.toml").write_text(_APP.format())
        (app / "federation" / "__init__.py").write_text("")
        (app / "federation" / "app.py").write_text(_PARTS.format(module=self.module))
        home.mkdir(parents=True, exist_ok=True)
        address = f'address = "{HOST}:{port}"\nroot-certificates = "{files.authority}"\n'
        (home / "config.toml").write_text(f'[superlink]\ndefault = "planish"\n\n[superlink.planish]\n{address}')


@dataclass(frozen=True)
class _Started:
    process: subprocess.Popen[bytes]
    log: Path

    def last(self) -> str:
        """The last line of the log that says something."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip(" │╰╯─")), "the log is empty")


def _superlink(files: Certificates, port: int) -> Sequence[str]:
    tls = ["--ssl-ca-certfile", files.authority, "--ssl-certfile", files.server, "--ssl-keyfile", files.key]
    place = ["--host", HOST, "--port", port, "--disable-runtime-dependency-installation"]
    return ["flower-superlink", *map(str, [*tls, *place])]


def _supernode(files: Certificates, port: int, own: int, number: int, clients: int) -> Sequence[str]:
    tls = ["--root-certificates", files.authority, "--ssl-ca-certfile", files.authority]
    tls += ["--ssl-certfile", files.server, "--ssl-keyfile", files.key]
    place = ["--superlink", f"{HOST}:{port}", "--host", HOST, "--port", own]
    config = ["--node-config", f"{CLIENT}={number} num-partitions={clients}"]
    return ["flower-supernode", *map(str, [*tls, *place, *config])]


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


@contextmanager
def _processes(folder: Path, environment: Mapping[str, str]) -> Iterator[Callable[..., _Started]]:
    """A function that starts a program of Flower's with a log in `folder`; all are ended afterwards."""
    started: list[_Started] = []

    def start(name: str, program: str, *arguments: str) -> _Started:
        found = shutil.which(program, path=environment["PATH"])
        if found is None:
            raise MissingExtra(program, "federated", "federate --deploy")
        log = folder / f"{name}.log"
        with log.open("wb") as stream:
            command = [found, *arguments]
            process = subprocess.Popen(command, stdout=stream, stderr=stream, env=dict(environment), cwd=folder)
        started.append(_Started(process, log))
        return started[-1]

    try:
        yield start
    finally:
        for each in reversed(started):
            each.process.terminate()
        for each in started:
            with suppress(subprocess.TimeoutExpired):
                each.process.wait(timeout=10)
            if each.process.poll() is None:
                each.process.kill()
                each.process.wait()


def _wait_for(port: int, running: Sequence[_Started], timeout: float) -> None:
    def listens() -> bool:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return True
        return False

    _wait(listens, running, timeout)


def _wait(is_over: Callable[[], bool], running: Sequence[_Started], timeout: float) -> None:
    end, lost = time.monotonic() + timeout, set[str]()
    while not is_over():
        if running[0].process.poll() is not None:
            raise EngineError("the SuperLink ended", str(running[0].log), running[0].last())
        lost |= {each.log.stem for each in running[1:] if each.process.poll() is not None}
        if len(lost) and len(lost) == len(running) - 1:
            raise EngineError("all SuperNodes ended", str(running[1].log), running[1].last())
        if time.monotonic() > end:
            raise EngineError(f"not over after {timeout:g} s", str(running[0].log), running[0].last())
        time.sleep(0.2)
