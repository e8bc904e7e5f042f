"""What users would pick otherwise, each at its best settings.

A peer is a file made once per model (quantized, optimized) and a session per shape and number of threads. Peers that
are no file (eager, compiled) are callables made on the spot. No code of Planish's engines is used here.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import torch
from onnxruntime import quantization as oq
from torch import Tensor, nn

from benchmarks.problems import Call, Feed, Problem

Maker = Callable[[Problem, Path], None]
CALIBRATED = 300
LATENCY = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}


class MaskedEncoder(nn.Module):
    """MiniLM with attention spelled out and a two-axis mask: the pattern that ONNX Runtime's optimizer looks for."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings, as of `planish.models.minilm`."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0), dim=-1)


# OpenVINO and NNCF ----------------------------------------------------------------------------------------------------


def openvino_fp32(problem: Problem, file: Path) -> None:
    """From PyTorch directly: attention stays one operation."""
    feed = problem.calibration(1)[0]
    example = tuple(torch.from_numpy(np.concatenate([feed[name]] * 2)) for name in problem.arguments)
    axes = (0, 1) if problem.is_text else (0,)
    shapes = []
    for tensor in example:
        sizes = [-1 if axis in axes else size for axis, size in enumerate(tensor.shape)]
        shapes.append((ov.PartialShape(sizes), ov.Type.i64 if problem.is_text else ov.Type.f32))
    model = ov.convert_model(problem.module, example_input=example, input=shapes)
    for port, name in zip(model.inputs, problem.arguments, strict=True):
        port.get_tensor().set_names({name})
    ov.save_model(model, file, compress_to_fp16=False)


def nncf_ptq(
    problem: Problem, file: Path, *, transformer: bool = False, mixed: bool = False, alpha: float | None = None
) -> None:
    """NNCF post-training quantization: per channel, 300 calibration rows."""
    import nncf

    options: dict[str, object] = {}
    if transformer:
        options["model_type"] = nncf.ModelType.TRANSFORMER
    if mixed:
        options["preset"] = nncf.QuantizationPreset.MIXED
    if alpha is not None:
        options["advanced_parameters"] = nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=alpha)
        )
    data = nncf.Dataset(problem.calibration(CALIBRATED))
    model = nncf.quantize(_openvino(problem, file), data, subset_size=CALIBRATED, **options)
    ov.save_model(model, file, compress_to_fp16=False)


def nncf_accuracy_aware(problem: Problem, file: Path) -> None:
    """NNCF puts layers back to fp32 until fidelity on 50 validation rows drops by at most .002."""
    import nncf

    rows = problem.rows("validation", 50)
    wanted = {id(feed): problem.eager(feed) for feed in rows}

    def fidelity(model: ov.CompiledModel, feeds: Iterable[Feed]) -> tuple[float, list[float]]:
        scores = []
        for feed in feeds:
            exact = wanted[id(feed)]
            error = np.linalg.norm(model(dict(feed))[0] - exact) / np.linalg.norm(exact)
            scores.append(float(1 - error**2 / 2))
        return float(np.mean(scores)), scores

    kind = {"model_type": nncf.ModelType.TRANSFORMER} if problem.is_transformer else {}
    model = nncf.quantize_with_accuracy_control(
        _openvino(problem, file),
        nncf.Dataset(problem.calibration(CALIBRATED)),
        nncf.Dataset(rows),
        fidelity,
        max_drop=0.002,
        drop_type=nncf.DropType.ABSOLUTE,
        # a minute each; more layers in fp32 are no faster
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(max_num_iterations=8),
        subset_size=CALIBRATED,
        **kind,
    )
    ov.save_model(model, file, compress_to_fp16=False)


def nncf_weights(problem: Problem, file: Path) -> None:
    """8-bit weights; activations stay what the engine makes of them."""
    import nncf

    model = nncf.compress_weights(_openvino(problem, file), mode=nncf.CompressWeightsMode.INT8_SYM)
    ov.save_model(model, file, compress_to_fp16=False)


def _openvino(problem: Problem, file: Path) -> ov.Model:
    return ov.Core().read_model(_once(openvino_fp32, problem, file.with_name("openvino-fp32.xml")))


# ONNX Runtime ---------------------------------------------------------------------------------------------------------


def onnx_fp32(problem: Problem, file: Path) -> None:
    """The current exporter's file."""
    _export(problem, problem.module, file, dynamo=True)


def onnx_fused(problem: Problem, file: Path) -> None:
    """ONNX Runtime's transformer optimizer: attention, GELU and skip connections each one operation."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    raw = file.with_name("torchscript.onnx")
    module = problem.module
    if problem.is_text:
        from planish.models import minilm

        module = MaskedEncoder(minilm.encoder().encoder)
        module.encoder.set_attn_implementation("eager")
    _export(problem, module.eval(), raw, dynamo=False)
    kind = "bert" if problem.is_text else "vit"
    heads, hidden = (12, 384) if problem.is_text else (3, 192)
    fused = optimizer.optimize_model(
        str(raw), kind, num_heads=heads, hidden_size=hidden, opt_level=1, optimization_options=FusionOptions(kind)
    )
    fused.save_model_to_file(str(file))


def ort_static(
    problem: Problem, file: Path, *, reduce_range: bool = False, outputs: bool = True, percentile: bool = False
) -> None:
    """Static U8 × S8, per channel.

    Args:
        problem: The model.
        file: Where to write.
        reduce_range: 7-bit weights, which cannot saturate `vpmaddubsw`.
        outputs: Also round what a layer puts out, as is the tool's default.
        percentile: Ranges by percentile rather than minimum and maximum; the tool then wants rows of one length.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    base = _once(onnx_fp32, problem, file.with_name("onnxruntime-fp32.onnx"))
    prepared = file.with_name("prepared.onnx")
    quant_pre_process(str(base), str(prepared), skip_symbolic_shape=True)
    linear = ["MatMul", "Gemm", "Gather"] if problem.is_transformer else None
    extra = {} if outputs else {"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm", "Gather", "Conv"]}
    oq.quantize_static(
        str(prepared),
        str(file),
        _Reader(problem.padded(100) if percentile else problem.calibration(CALIBRATED)),
        quant_format=oq.QuantFormat.QDQ,
        op_types_to_quantize=linear,
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=oq.QuantType.QUInt8,
        weight_type=oq.QuantType.QInt8,
        calibrate_method=oq.CalibrationMethod.Percentile if percentile else oq.CalibrationMethod.MinMax,
        extra_options=extra,
    )


def ort_dynamic(
    problem: Problem, file: Path, *, fused: bool = False, reduce_range: bool = False, unsigned: bool = False
) -> None:
    """Dynamic U8 activations, S8 (or U8) weights per channel."""
    name, make = ("onnxruntime-fused-fp32", onnx_fused) if fused else ("onnxruntime-fp32", onnx_fp32)
    base = _once(make, problem, file.with_name(f"{name}.onnx"))
    oq.quantize_dynamic(
        str(base),
        str(file),
        per_channel=True,
        reduce_range=reduce_range,
        weight_type=oq.QuantType.QUInt8 if unsigned else oq.QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def ort_blocks(problem: Problem, file: Path) -> None:
    """8-bit weights in groups of 32, activations rounded in the same groups as they come."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    base = _once(onnx_fused, problem, file.with_name("onnxruntime-fused-fp32.onnx"))
    quantizer = MatMulNBitsQuantizer(onnx.load(base), bits=8, block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(file))


class _Reader(oq.CalibrationDataReader):
    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return dict(feed) if (feed := next(self._feeds, None)) is not None else None


def _export(problem: Problem, module: nn.Module, file: Path, dynamo: bool) -> None:
    feed = problem.calibration(1)[0]
    args = tuple(torch.from_numpy(np.concatenate([feed[name]] * 2)) for name in problem.arguments)
    axes = {0: "batch", 1: "sequence"} if problem.is_text else {0: "batch"}
    free = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    shapes = (
        {"dynamic_shapes": tuple(free for _ in args)}
        if dynamo
        else {
            "dynamic_axes": dict.fromkeys(problem.arguments, axes),
            "opset_version": 17,
        }
    )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            args,
            str(file),
            dynamo=dynamo,
            input_names=list(problem.arguments),
            verbose=False,
            **shapes,
            **({"external_data": False} if dynamo else {}),
        )


# The table and the sessions -------------------------------------------------------------------------------------------

_COMMON: dict[str, Maker] = {
    "openvino fp32": openvino_fp32,
    "onnxruntime fp32": onnx_fp32,
    "nncf default": nncf_ptq,
    "nncf accuracy-aware": nncf_accuracy_aware,
    "openvino 8-bit weights": nncf_weights,
    "onnxruntime static": ort_static,
    "onnxruntime static 7-bit weights": partial(ort_static, reduce_range=True),
    "onnxruntime static percentile": partial(ort_static, percentile=True),
}
_CNN: dict[str, Maker] = {"nncf mixed": partial(nncf_ptq, mixed=True)}
_TRANSFORMER: dict[str, Maker] = {
    "onnxruntime fused fp32": onnx_fused,
    "nncf transformer": partial(nncf_ptq, transformer=True),
    **{f"nncf transformer α {a}": partial(nncf_ptq, transformer=True, alpha=a) for a in (0.5, 0.7, 0.85)},
    "onnxruntime static inputs only": partial(ort_static, outputs=False),
    "onnxruntime static inputs only 7-bit weights": partial(ort_static, outputs=False, reduce_range=True),
    "onnxruntime dynamic": ort_dynamic,
    "onnxruntime dynamic fused": partial(ort_dynamic, fused=True),
    "onnxruntime dynamic fused 7-bit weights": partial(ort_dynamic, fused=True, reduce_range=True),
    "onnxruntime dynamic fused U8U8": partial(ort_dynamic, fused=True, unsigned=True),
    "onnxruntime 8-bit groups of 32": ort_blocks,
}
QUICK = (
    "openvino fp32",
    "nncf transformer",
    "nncf mixed",
    "openvino 8-bit weights",
    "onnxruntime static",
    "onnxruntime static inputs only",
    "onnxruntime dynamic fused",
)


def files(problem: Problem) -> Mapping[str, Maker]:
    """Peers that are files, by name; the baseline, `openvino fp32`, comes first."""
    return {**_COMMON, **(_TRANSFORMER if problem.is_transformer else _CNN)}


def prepare(name: str, problem: Problem, folder: Path) -> Path:
    """The peer's file, made unless it is there."""
    ending = "xml" if name.startswith(("openvino", "nncf")) else "onnx"
    return _once(files(problem)[name], problem, folder / f"{name.replace(' ', '-')}.{ending}")


def _once(make: Maker, problem: Problem, file: Path) -> Path:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        for library in ("nncf", "onnxruntime", "root"):
            logging.getLogger(library).setLevel(logging.ERROR)
        make(problem, file)
    return file


def size(file: Path) -> int:
    """Bytes of a peer's file, its weights included."""
    return sum(part.stat().st_size for part in {file, file.with_suffix(".bin")} if part.exists())


def session(file: Path, problem: Problem, threads: int, groups: int = 0, half: bool = False) -> Call:
    """A peer's file, ready to run.

    Args:
        file: OpenVINO's `.xml` or an `.onnx`.
        problem: Says whether sizes can be fixed, which OpenVINO runs faster.
        threads: Cores that it may use.
        groups: OpenVINO only: activations rounded to 8 bits in groups of this size, as they come (0: not at all).
        half: OpenVINO only: bfloat16 where nothing else is said, as it does itself on processors that have it.
    """
    if file.suffix == ".onnx":
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        # its threads may spin while it runs, and must not while another engine does
        options.add_session_config_entry("session.force_spinning_stop", "1")
        started = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        known = {port.name for port in started.get_inputs()}
        return lambda feed: started.run(None, {name: feed[name] for name in known})[0]
    model = ov.Core().read_model(file)
    if problem.shape != "stream":
        model.reshape({name: list(array.shape) for name, array in problem.timed()[0].items()})
    precision = {"INFERENCE_PRECISION_HINT": "bf16"} if half else {}
    settings = {**LATENCY, **precision, "INFERENCE_NUM_THREADS": threads, "DYNAMIC_QUANTIZATION_GROUP_SIZE": groups}
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda feed: request.infer(dict(feed), share_inputs=True)[0]


def compiled(problem: Problem, int8: bool = False) -> Callable[[list[Tensor]], Tensor]:
    """`torch.compile`, in fp32 or with torchao's dynamic int8; called with tensors."""
    module = problem.module
    if int8:
        import copy

        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        module = copy.deepcopy(module)
        quantize_(module, Int8DynamicActivationInt8WeightConfig())
    fast = torch.compile(module, dynamic=True if problem.shape == "stream" else None)
    return lambda inputs: without_gradients(fast, inputs)


def without_gradients(module: Callable[..., Tensor], inputs: list[Tensor]) -> Tensor:
    """The module's answer."""
    with torch.no_grad():
        return module(*inputs)
