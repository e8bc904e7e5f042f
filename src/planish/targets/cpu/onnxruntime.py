"""ONNX Runtime. Reads the same ONNX file; fuses its patterns when a session starts."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor

from planish.errors import EngineError, MissingExtra, UserError
from planish.graph import Graph
from planish.targets.base import Unsupported
from planish.targets.cpu.builder import Dialect
from planish.targets.cpu.engine import Options, may_saturate, shares
from planish.targets.cpu.lower import lower, onnx_model
from planish.targets.cpu.signature import Signature

try:
    import onnxruntime as ort
except ImportError as error:
    raise MissingExtra("onnxruntime", "cpu", "engine 'onnxruntime'") from error

_MODEL = "model.onnx"
_SILENT = 3  # errors only: what the optimizer says of itself is not for the user
_DIALECT = Dialect(fused_attention=True)
_INTEGER = ("Integer", "QLinear", "QGemm", "QAttention", "NBits")


class OnnxRuntime:
    """The engine."""

    has_exact = may_saturate()
    has_bfloat16 = False

    def unsupported(self, graph: Graph) -> list[Unsupported]:
        """Operations without an ONNX form, and formats of activations without a kernel."""
        return list(lower(graph, dialect=_DIALECT).unsupported)

    def compile(self, graph: Graph, options: Options) -> OnnxRuntimeModel:
        """Compile a graph."""
        files = {_MODEL: onnx_model(graph, options.fixed, _DIALECT).SerializeToString()}
        return self.load(files, Signature.of(graph).tensor_inputs, options)

    def load(self, files: Mapping[str, bytes], names: Sequence[str], options: Options) -> OnnxRuntimeModel:
        """Compile a model file."""
        return OnnxRuntimeModel(files, names, options)


class OnnxRuntimeModel:
    """A session."""

    def __init__(self, files: Mapping[str, bytes], names: Sequence[str], options: Options) -> None:
        self.files, self._names, self._options = dict(files), list(names), options
        self._session = self._start()
        known = {port.name for port in self._session.get_inputs()}
        self._fed = [place for place, name in enumerate(self._names) if name in known]

    def _start(self, profile: Path | None = None) -> ort.InferenceSession:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = self._options.threads, 1
        settings.log_severity_level = _SILENT
        # its threads spin between operations, which are short, and must not while something else runs
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        disabled = ["SkipLayerNormFusion"]  # its kernel takes several times as long as an addition and a layer norm
        if any(node.op_type == "QuantizeLinear" for node in onnx.load_from_string(self.files[_MODEL]).graph.node):
            disabled += ["MatMulAddFusion"]  # a Gemm with a float bias has no integer kernel, MatMul and Add have
        else:  # nothing can run in integers: dequantize once, when the session starts, and not on every run
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        if self._options.exact:
            settings.add_session_config_entry("session.x64quantprecision", "1")
        if profile:
            settings.enable_profiling, settings.profile_file_prefix = True, str(profile / "profile")
        try:
            return ort.InferenceSession(
                self.files[_MODEL], settings, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
            )
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise EngineError(f"ONNX Runtime refuses the model: {error}", "engine 'onnxruntime'") from error

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run once; tensors in the order of the signature."""
        return [torch.from_numpy(array) for array in self._run(self._session, inputs)]

    def _run(self, session: ort.InferenceSession, inputs: Sequence[Tensor]) -> Any:
        fed = {self._names[place]: inputs[place].contiguous().numpy() for place in self._fed}
        try:
            return session.run(None, fed)
        except Exception as error:  # likewise
            raise EngineError(f"ONNX Runtime fails on these inputs: {error}") from error

    def executed_precisions(self, inputs: Sequence[Tensor]) -> dict[str, float]:
        """From its profiler: the kernels that ran, by name and output type."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._start(Path(folder))
            for _ in range(3):
                self._run(session, inputs)
            try:
                events = json.loads(Path(session.end_profiling()).read_text())
            except (OSError, json.JSONDecodeError) as error:  # ONNX Runtime does not tell that a disk is full
                hint = "free space for temporary files, or set TMPDIR to another folder"
                raise UserError("the profile of ONNX Runtime was not written whole", folder, hint) from error
        times: dict[str, float] = defaultdict(float)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                op, types = event["args"]["op_name"], str(event["args"].get("output_type_shape", ""))
                whole = any(word in op for word in _INTEGER) or op == "DynamicQuantizeMatMul" or "int8" in types
                times["int8" if whole else "f32"] += event["dur"]
        return shares(times)
