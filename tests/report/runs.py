"""Run folders as `planish train`, `planish federate` and `planish analyze --training` leave them."""

from __future__ import annotations

import json
from pathlib import Path

from planish.record import Measurement, Run
from tests.report import sample

BLOCKS = ("body.0", "body.1")


def training(path: Path, *, ended: bool = True, plan: str = "fsdp = 2\ntp = 2\n", better: bool = True) -> Run:
    """Three epochs, judged before and after; one that is not at its end has two epochs and no time."""
    run = _begun(path, "planish train mlp --epochs 3")
    run.write("plan.toml", plan)
    losses = (2.25, 0.75, 0.00025)[: 3 if ended else 2]
    details = [{"epoch": epoch, "step": 20 * epoch, "learning_rate": 1e-3 / epoch} for epoch in (1, 2, 3)]
    pairs = zip(losses, details, strict=False)
    run.add([Measurement("training_loss", loss, "1", "measured", details=about) for loss, about in pairs], "train")
    if not ended:
        return run
    run.add(Measurement("training_steps", 60, "1", "exact"), "train")
    run.add(Measurement("training_time", 12.5, "s", "measured", details={"steps": 60}), "train")
    about = {"data": "500 digits", "count": 500, "headline": True}
    for subject, value in (("before", 0.5), ("trained", 0.875 if better else 0.25)):
        spread = (value - 0.03125, value + 0.03125)
        run.add(Measurement("sqnr", 20.0, "dB", "measured", subject=subject, details={"data": "500 digits"}), "train")
        run.add(Measurement("accuracy", value, "1", "measured", spread, subject, details=about), "train")
    return run


def federation(path: Path, *, rounds: int = 3, private: bool = True, judged: bool = True) -> Run:
    """Rounds of four clients, of which one was refused in the second."""
    run = _begun(path, "planish federate mlp --rounds 3")
    asked = {"clients": 4, "rounds": 3, **({"privacy": "noise=1,clip=0.5"} if private else {})}
    run.write("federation.json", json.dumps({"model": "mlp", "federation": asked, "fresh": True}))
    for number in range(1, rounds + 1):
        refused = [["3", "its update is not finite"]] if number == 2 else []
        about = {"round": number, "clients": 4 - len(refused), "refused": refused}
        quality = number / 4
        rows = [
            Measurement("training_loss", 3 / number, "1", "measured", details=about),
            Measurement("bytes_sent", 4096 * number, "B", "measured", details=about),
            Measurement("bytes_received", 1024, "B", "measured", details=about),
            Measurement("round_time", 0.25, "s", "measured", details=about),
        ]
        rows += [Measurement("epsilon", 2.5 * number, "1", "exact", details=about)] if private else []
        spread = quality - 0.125, quality + 0.125
        rows += [Measurement("accuracy", quality, "1", "measured", spread, details=about)] if judged else []
        run.add(rows, "federation")
    return run


def step(path: Path, model: str = "mlp") -> Run:
    """Two blocks of two parts each, a head, and what the model does itself."""
    run = _begun(path, f"planish analyze {model} --training")
    about = {"batch": 8, "loss": "mse", "optimizer": "adamw"}
    sizes = {"parameters": 4000, "inputs": 100, "gradients": 4000, "optimizer": 8000, "activations": 2100}
    run.add([Measurement(f"training_{k}", v, "B", "exact", details=about) for k, v in sizes.items()], "training step")
    more = {**about, "recomputed": list(BLOCKS)}
    peaks = [
        Measurement("training_peak_memory", 19_000, "B", "modeled", details=about),
        Measurement("training_peak_memory", 20_000, "B", "measured", details=about),
        Measurement("training_peak_memory", 18_000, "B", "modeled", subject="recomputed", details=more),
    ]
    run.add(peaks, "training step")
    parts = {"": (2100, 700), "body": (1800, 600)}
    parts |= dict.fromkeys(BLOCKS, (900, 300))
    parts |= {f"{block}.{name}": (450, 150) for block in BLOCKS for name in ("in", "out")}
    parts["head"] = (100, 100)
    for where, (kept, forward) in parts.items():
        saves = {"recompute": kept // 2 if where else None, "bf16": kept // 2, "fp8": 3 * kept // 4}
        rows = [
            Measurement("training_forward", forward, "FLOP", "exact", where=where),
            Measurement("training_backward", 2 * forward, "FLOP", "exact", where=where),
            Measurement("training_kept", kept, "B", "exact", where=where, details={"saved_by": saves}),
        ]
        run.add(rows, "training step")
    return run


def _begun(path: Path, command: str) -> Run:
    run = Run(path)
    run.write("environment.json", json.dumps({**sample.ENVIRONMENT, "command": command}))
    return run
