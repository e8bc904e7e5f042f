"""A run folder as `planish demo` leaves it: a six-layer sentence encoder, six engines, numbers of the right size."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from planish.record import Measurement, Run, Source

HIDDEN, TOKENS, F32_PEAK, BANDWIDTH = 384, 128, 68e9, 17e9
FORMATS = ("int8", "int8:group(32)", "int4:group(32)", "mxfp4")
COMMAND = "planish demo --run runs/minilm --seed 0"


def write(path: Path, *, layers: int = 6, name: str = "MiniLM-L6-v2", stop_after: int | None = None) -> Run:
    """Write the folder; `stop_after` keeps that many rows only, as an interrupted run would."""
    run = Run(path)
    rows = list(measurements(layers, name))
    run.add(rows if stop_after is None else rows[:stop_after])
    run.write("environment.json", json.dumps(ENVIRONMENT, indent=2))
    if stop_after is None:
        run.write("recipe.toml", RECIPE)
        run.write(
            "graph.txt",
            "\n".join(f"%{node}  {op}  [batch, {TOKENS}, {HIDDEN}]  {path}" for path, node, op, *_ in ops(layers)),
        )
    return run


def measurements(layers: int, name: str) -> Iterator[Measurement]:
    chance = random.Random(0)
    yield Measurement(
        "model", 22_713_216, "1", "exact", subject=name, details={"task": "sentence similarity", "input": "128 tokens"}
    )
    yield Measurement("size", 90_852_864, "B", "exact", subject="original")
    for subject, value in (("gemm f32", F32_PEAK), ("gemm bf16", 2.3e9), ("gemm int8", 121e9)):
        yield Measurement("peak", value, "FLOP/s", "measured", (0.97 * value, 1.01 * value), subject)
    yield Measurement("peak", BANDWIDTH, "B/s", "measured", (0.96 * BANDWIDTH, 1.02 * BANDWIDTH), "memory")
    yield from per_layer(layers, chance)
    yield from quality()
    yield from engines()


def ops(layers: int) -> Iterator[tuple[str, str, str, str, float, float]]:
    """Path, node, op, module class, MACs, weights: in execution order."""
    linear = TOKENS * HIDDEN * HIDDEN
    for kind, rows in (("word", 30522), ("position", 512), ("token_type", 2)):
        yield f"embeddings.{kind}_embeddings", f"embedding_{kind}", "embedding", "Embedding", 0, rows * HIDDEN
    yield "embeddings", "add", "add", "BertEmbeddings", 0, 0
    yield "embeddings.LayerNorm", "layer_norm", "layer_norm", "LayerNorm", 0, 2 * HIDDEN
    for i in range(layers):
        at = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            yield f"{at}.attention.self.{part}", f"linear_{i}_{part}", "linear", "Linear", linear, HIDDEN**2 + HIDDEN
        yield (
            f"{at}.attention.self",
            f"sdpa_{i}",
            "scaled_dot_product_attention",
            "BertSdpaSelfAttention",
            2 * TOKENS * TOKENS * HIDDEN,
            0,
        )
        yield f"{at}.attention.self", f"transpose_{i}", "transpose", "BertSdpaSelfAttention", 0, 0
        yield f"{at}.attention.output.dense", f"linear_{i}_o", "linear", "Linear", linear, HIDDEN**2 + HIDDEN
        yield f"{at}.attention.output", f"add_{i}_1", "add", "BertSelfOutput", 0, 0
        yield f"{at}.attention.output.LayerNorm", f"layer_norm_{i}_1", "layer_norm", "LayerNorm", 0, 2 * HIDDEN
        yield f"{at}.intermediate.dense", f"linear_{i}_up", "linear", "Linear", 4 * linear, 4 * HIDDEN**2 + 4 * HIDDEN
        yield f"{at}.intermediate.intermediate_act_fn", f"gelu_{i}", "gelu", "GELUActivation", 0, 0
        yield f"{at}.output.dense", f"linear_{i}_down", "linear", "Linear", 4 * linear, 4 * HIDDEN**2 + HIDDEN
        yield f"{at}.output", f"add_{i}_2", "add", "BertOutput", 0, 0
        yield f"{at}.output.LayerNorm", f"layer_norm_{i}_2", "layer_norm", "LayerNorm", 0, 2 * HIDDEN
    yield "pooling", "mean", "mean", "Pooling", 0, 0
    yield "normalize", "normalize", "linalg_vector_norm", "Normalize", 0, 0


def per_layer(layers: int, chance: random.Random) -> Iterator[Measurement]:
    for path, node, op, kind, macs, weights in ops(layers):
        d = {"node": node, "op": op, "type": kind}
        width = 4 if "intermediate" in path or op == "gelu" else 1
        flops = 2 * macs or (
            TOKENS
            * HIDDEN
            * width
            * {"layer_norm": 8, "gelu": 12, "add": 1, "mean": 1, "linalg_vector_norm": 2}.get(op, 0)
        )
        weight_bytes, activation_bytes = 4 * weights, 4 * TOKENS * HIDDEN * (1 + width)
        moved = activation_bytes + (4 * TOKENS * HIDDEN if op == "embedding" else weight_bytes)
        roof = max(flops / F32_PEAK, moved / BANDWIDTH)
        time = roof / chance.uniform(0.42, 0.86) + 4e-6
        rows: tuple[tuple[str, float, str, Source], ...] = (
            ("macs", macs, "MAC", "exact"),
            ("flops", flops, "FLOP", "exact"),
            ("weight_bytes", weight_bytes, "B", "exact"),
            ("activation_bytes", activation_bytes, "B", "exact"),
            ("intensity", flops / moved, "FLOP/B", "exact"),
            ("roofline_time", roof, "s", "modeled"),
        )
        for name, value, unit, source in rows:
            yield Measurement(name, value, unit, source, where=path, details=d)
        yield Measurement("node_time", time, "s", "measured", (0.97 * time, 1.05 * time), "original", path, d)
        if op == "linear":
            faster = time / chance.uniform(2.2, 3.4)
            yield Measurement("node_time", faster, "s", "measured", (0.96 * faster, 1.06 * faster), "chosen", path, d)
        if op in ("linear", "embedding"):
            base = (
                {"embedding": 49}.get(op, 41)
                - 7 * ("output.dense" in path and "attention" not in path)
                + chance.gauss(0, 2.4)
            )
            kept = op == "linear" and path.endswith(("4.output.dense", "5.output.dense"))
            for fmt, loss in zip(FORMATS, (0, -4, 17, 21), strict=True):
                yield Measurement(
                    "sensitivity",
                    base - loss + chance.gauss(0, 0.8),
                    "dB",
                    "measured",
                    where=path,
                    details={"format": fmt},
                )
            yield Measurement(
                "weight_bits", 8, "bit", "exact", subject="chosen", where=path, details={"format": "int8"}
            )
            bits, fmt = (32, "float32") if kept or op == "embedding" else (8, "uint8")
            yield Measurement(
                "activation_bits", bits, "bit", "exact", subject="chosen", where=path, details={"format": fmt}
            )


def quality() -> Iterator[Measurement]:
    lee, tweets = "50 documents of the Lee corpus", "500 sentences of vaderSentiment, rated by people"
    for subject, cosine, lee_r, accuracy in (
        ("original", 1, 0.7219, 0.8340),
        ("baseline", 1, 0.7219, 0.8340),
        ("chosen", 0.99861, 0.7204, 0.8320),
    ):
        if subject == "chosen":
            yield Measurement(
                "mean_cosine",
                cosine,
                "1",
                "measured",
                (0.99852, 0.99869),
                subject,
                details={"data": tweets, "count": 500, "headline": True},
            )
        yield Measurement(
            "lee_pearson",
            lee_r,
            "1",
            "measured",
            (lee_r - 0.031, lee_r + 0.028),
            subject,
            details={"data": lee, "count": 1225},
        )
        yield Measurement(
            "sentiment_accuracy",
            accuracy,
            "1",
            "measured",
            (accuracy - 0.033, accuracy + 0.031),
            subject,
            details={"data": tweets, "count": 500},
        )


def engines() -> Iterator[Measurement]:
    common = {"threads": 1, "batch": 1, "shape": [1, TOKENS]}
    chosen = 0.01512
    for label, role, seconds in (
        ("eager fp32", "eager", 0.0522),
        ("openvino fp32", "baseline", 0.0418),
        ("onnxruntime fp32", "candidate", 0.0455),
        ("inductor fp32", "candidate", 0.0467),
        ("onnxruntime int8", "candidate", 0.0238),
        ("openvino int8", "chosen", chosen),
    ):
        engine, precision = label.split()
        details = {"role": role, "engine": engine, "precision": precision, **common}
        yield Measurement(
            "latency", seconds, "s", "measured", (0.982 * seconds, 1.041 * seconds), label, details=details
        )
        yield Measurement("cold_start", 6 * seconds + 0.2, "s", "measured", subject=label)
        yield Measurement("peak_memory", 2.1e8 + 1e8 * (precision == "fp32"), "B", "measured", subject=label)
        yield Measurement(
            "executed_precision",
            0.96 if precision == "int8" else 1,
            "1",
            "measured",
            subject=label,
            details={"precision": precision},
        )
        if role != "chosen":
            ratio = seconds / chosen
            yield Measurement(
                "speedup", ratio, "x", "measured", (0.985 * ratio, 1.014 * ratio), label, details={"role": role}
            )
    yield Measurement(
        "refused",
        1,
        "1",
        "exact",
        subject="inductor int8",
        details={"engine": "inductor int8", "reason": "cosine 0.9712 to the graph is outside the tolerance 0.999"},
    )
    yield Measurement("size", 23_118_336, "B", "exact", subject="chosen")


ENVIRONMENT = {
    "time": "2026-11-21T05:02:11+00:00",
    "command": COMMAND,
    "seed": 0,
    "python": "3.11.7",
    "system": "Linux 6.8",
    "cpu": "AMD EPYC 7B13",
    "cpu_features": ["avx2", "fma", "f16c"],
    "cores": 2,
    "versions": {
        "planish": "0.1.0",
        "torch": "2.13.0",
        "numpy": "2.4.6",
        "onnxruntime": "1.22.0",
        "openvino": "2026.0.0",
    },
}
RECIPE = """[[step]]
pass = "smooth"
alpha = 0.85

[[step]]
pass = "quantize"
weights = "int8"
activations = "uint8"
where = "linear"
max_drop = 0.002
"""
