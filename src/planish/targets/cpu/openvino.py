"""OpenVINO. Reads the ONNX file; quantizes grouped dynamic activations in its own kernels."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planish.errors import EngineError, MissingExtra
from planish.formats import Format
from planish.formats.integer import Int
from planish.graph import FAMILIES, Graph
from planish.targets.base import Unsupported
from planish.targets.cpu.builder import Dialect
from planish.targets.cpu.engine import Options, has_bfloat16, shares
from planish.targets.cpu.lower import lower, onnx_model
from planish.targets.cpu.signature import Signature

try:
    import openvino as ov
except ImportError as error:
    raise MissingExtra("openvino", "cpu", "engine 'openvino'") from error

_MODEL, _SETTINGS = "model.onnx", "openvino.json"
# what a file may set
_KEPT = frozenset({"DYNAMIC_QUANTIZATION_GROUP_SIZE", "SNIPPETS_MODE", "INFERENCE_PRECISION_HINT"})

_COPIED = 1 << 20
"""Bytes of an input that are copied sooner than another tensor is made of them."""


def _group(form: Format) -> int:
    """Numbers of a block of a dynamic int8 format with groups along the last axis; 0 for any other format."""
    block = form.block
    if not form.is_dynamic or form.element != Int(8) or form.is_affine or block is None:
        return 0
    return next((size or 0 for axis, size in block.sizes if axis == -1), 0) if len(block.sizes) == 1 else 0


_DIALECT = Dialect(rounds=lambda form: _group(form) > 0, signed_products=True)


class OpenVino:
    """The engine."""

    has_exact = False
    has_bfloat16 = has_bfloat16()

    def unsupported(self, graph: Graph) -> list[Unsupported]:
        """Operations without an ONNX form, and formats of activations without a kernel."""
        return list(lower(graph, dialect=_DIALECT).unsupported)

    def compile(self, graph: Graph, options: Options) -> OpenVinoModel:
        """Compile a graph. Its precision is float32 wherever no cast and no option says otherwise."""
        groups = {size for node in graph.nodes if node.format and (size := _group(node.format))}
        model = onnx_model(graph, options.fixed, _DIALECT)
        # 0 forbids what the graph did not ask for: activations of weight-only layers rounded behind its back
        settings: dict[str, int | str] = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": min(groups, default=0)}
        if any(node.op in FAMILIES["conv"] and node.inputs[0].op == "cast" for node in graph.nodes):
            # its code generator would take the addition and the rounding behind an integer convolution for a kernel of
            # their own; without it, they are part of the convolution, which then neither writes nor reads floats
            settings["SNIPPETS_MODE"] = "DISABLE"
        if options.bfloat16:
            settings["INFERENCE_PRECISION_HINT"] = "bf16"
        files = {_MODEL: model.SerializeToString(), _SETTINGS: json.dumps(settings).encode()}
        return self.load(files, Signature.of(graph).tensor_inputs, options)

    def load(self, files: Mapping[str, bytes], names: Sequence[str], options: Options) -> OpenVinoModel:
        """Compile a model file."""
        return OpenVinoModel(files, names, options)


class OpenVinoModel:
    """A compiled model."""

    def __init__(self, files: Mapping[str, bytes], names: Sequence[str], options: Options) -> None:
        self.files, self._names, self._options = dict(files), list(names), options
        settings = json.loads(files[_SETTINGS]) if _SETTINGS in files else {}
        self._settings = {str(key): value for key, value in settings.items() if key in _KEPT}
        if options.bfloat16 and not OpenVino.has_bfloat16:
            hint = "build it again on this machine, without precision='bfloat16'"
            raise EngineError("this processor has no products of bfloat16", "engine 'openvino'", hint)
        self._request = _Request(self._compile(), self._names)

    def _compile(self, **extra: Any) -> ov.CompiledModel:
        core = ov.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self._options.threads,
            **self._settings,
        }
        try:
            return core.compile_model(core.read_model(self.files[_MODEL]), "CPU", {**settings, **extra})
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO refuses the model: {str(error).splitlines()[0]}", "engine 'openvino'"
            ) from error

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run once; tensors in the order of the signature."""
        try:
            return self._request(inputs)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO fails on these inputs: {str(error).splitlines()[-1]}") from error

    def executed_precisions(self, inputs: Sequence[Tensor]) -> dict[str, float]:
        """From the runtime model's own counters."""
        compiled = self._compile(PERF_COUNT=True)
        request = _Request(compiled, self._names)
        for _ in range(3):
            request(inputs)
        times: dict[str, float] = defaultdict(float)
        for node in compiled.get_runtime_model().get_ordered_ops():
            info = {key: value.astype(str) for key, value in node.get_rt_info().items() if hasattr(value, "astype")}
            spent = info.get("execTimeMcs", "")
            if spent.isdigit():
                times[_computes_in(info)] += float(spent)
        return shares(times)


class _Request:
    """One run after the other, in tensors of OpenVINO that stay where they are: to make one takes longer than to copy
    what is small, and to hand over inputs as a dictionary longer still."""

    def __init__(self, compiled: ov.CompiledModel, names: Sequence[str]) -> None:
        self._request = compiled.create_infer_request()
        places = {name: place for place, name in enumerate(names)}
        self._places = [places[(port.names & places.keys()).pop()] for port in compiled.inputs]
        self._inputs: list[np.ndarray | None] = [None] * len(self._places)
        self._outputs = [self._output(number, port) for number, port in enumerate(compiled.outputs)]

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        for number, place in enumerate(self._places):
            self._give(number, inputs[place])
        self._request.infer(share_outputs=True)
        return [self._taken(number, held) for number, held in enumerate(self._outputs)]

    def _give(self, number: int, tensor: Tensor) -> None:
        if tensor.nbytes > _COPIED:
            self._share(number, tensor.contiguous().numpy())
            return
        array = tensor.numpy()  # PyTorch would copy in threads of its own, which sleep when the engine's run
        held = self._inputs[number]
        if held is None or held.shape != array.shape or held.dtype != array.dtype:
            held = self._share(number, np.empty_like(array, order="C"))
        held[...] = array

    def _share(self, number: int, array: np.ndarray) -> np.ndarray:
        self._inputs[number] = array  # the request does not keep what it shares
        self._request.set_input_tensor(number, ov.Tensor(array, shared_memory=True))
        return array

    def _output(self, number: int, port: ov.ConstOutput) -> Tensor | None:
        """Where an output of a fixed shape is written."""
        if port.partial_shape.is_dynamic:
            return None
        tensor = ov.Tensor(port.element_type, port.shape)
        self._request.set_output_tensor(number, tensor)
        return torch.from_numpy(tensor.data)

    def _taken(self, number: int, held: Tensor | None) -> Tensor:
        """A copy, since the next run writes there."""
        return torch.from_numpy(self._request.get_output_tensor(number).data.copy()) if held is None else held.clone()


_NAMES = {"i8": "int8", "u8": "int8", "i4": "int4", "u4": "int4"}


def _computes_in(info: Mapping[str, str]) -> str:
    """The numbers that a kernel multiplies: those that its name tells, and of which it makes them if they are weights
    that it dequantizes as it reads them ("f32 from int4 weights")."""
    if info.get("layerType") == "If":  # of what runs in a branch it tells the time alone
        return "unknown"
    read = info.get("runtimePrecision", "unknown").lower()
    kernel = info.get("primitiveType", "").rpartition("_")[2].lower()
    if info.get("layerType") == "FullyConnected" and kernel in ("f32", "bf16", "f16") and read in _NAMES:
        return f"{kernel} from {_NAMES[read]} weights"
    given = kernel if kernel in ("i8", "u8", "f32", "bf16", "f16") else read
    return _NAMES.get(given, given)
