"""`planish federate`, simulated and for real."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from safetensors.torch import load_file

from planish.cli import console, main
from planish.flow.federate import Request
from planish.record import Run
from planish.training.federated import Federation, local
from tests.support import require

require("flwr")

USUAL = ("mlp", "--fresh", "--clients", "3", "--rounds", "2", "--update", "int8", "--batch-size", "50")


def planish(*words: str, code: int = 0) -> str:
    """What a command says, which is run here: torch is loaded already."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as stop:
        main(["federate", *words])
    assert (stop.value.code or 0) == code, said.getvalue()
    return said.getvalue()


@pytest.fixture(autouse=True)
def _own_screens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consoles that are made anew, for where a test's output goes."""
    for screen in (console.console, console.errors):
        monkeypatch.delitem(screen.__dict__, "rich", raising=False)


def rounds(folder: Path, name: str) -> Sequence[float]:
    return [row.value for row in Run(folder).measurements() if row.name == name]


def test_a_run_folder_has_every_round_and_the_model(tmp_path: Path) -> None:
    said = planish(*USUAL, "--run", str(tmp_path))
    assert "after 2 rounds of 3 clients" in said
    assert len(rounds(tmp_path, "accuracy")) == len(rounds(tmp_path, "bytes_received")) == 2
    assert set(load_file(tmp_path / "model.safetensors")) >= {"layers.0.weight", "layers.2.bias"}
    more = planish(*USUAL, "--rounds", "3", "--run", str(tmp_path))
    assert "after 3 rounds" in more
    assert len(rounds(tmp_path, "accuracy")) == 3


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--strategy", "fedagv"), "did you mean 'fedavg'?"),
        (("--partition", "even"), "unknown partition 'even'"),
        (("--privacy", "noise=1"), "the clip is missing"),
        (("--set", "trim=much"), "'much' is no number"),
        (("--set", "warp=1"), "cannot set 'warp=1'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words: Sequence[str], what: str, tmp_path: Path) -> None:
    assert what in planish(*USUAL, *words, "--run", str(tmp_path), code=2)


def test_a_request_as_data() -> None:
    federation = Federation(
        clients=3, partition="dirichlet:0.3", update="topk:10%", privacy="noise=1,clip=2", local=local(epochs=2)
    )
    request = Request("mlp", federation, fresh=True)
    assert Request.from_data(request.to_data()) == request


@pytest.mark.long
def test_a_deployment_over_tls_computes_what_the_simulation_does(tmp_path: Path) -> None:
    """SuperLink and SuperNodes in processes of their own, with certificates of their own, over loopback."""
    said = planish(*USUAL, "--deploy", "--run", str(tmp_path / "real"))
    assert "after 2 rounds of 3 clients" in said
    planish(*USUAL, "--run", str(tmp_path / "simulated"))
    assert rounds(tmp_path / "real", "accuracy") == rounds(tmp_path / "simulated", "accuracy")
    assert (tmp_path / "real" / "deployment" / "certificates" / "ca.pem").exists()
    log = (tmp_path / "real" / "deployment" / "superlink.log").read_text()
    assert "https://127.0.0.1" in log


def test_an_expired_certificate_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from planish.training.federated import certificates

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=40)

    certificates.prepare(tmp_path / "certificates", ("127.0.0.1", "localhost"))
    monkeypatch.setattr(certificates, "datetime", Later)
    words = ("--deploy", "--certificates", str(tmp_path / "certificates"), "--run", str(tmp_path / "run"))
    assert "the certificate expired on" in planish(*USUAL, *words, code=2)
    assert not (tmp_path / "run" / "deployment" / "superlink.log").exists()
