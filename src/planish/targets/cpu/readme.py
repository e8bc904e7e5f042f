"""The README of an artifact: what is in the folder, and ten lines that run it without Planish."""

from __future__ import annotations

from planish.targets.cpu.engine import Options
from planish.targets.cpu.signature import Signature

_OPENVINO = """import json
import numpy as np
import openvino as ov

settings = {{"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": {threads}, "INFERENCE_PRECISION_HINT": "f32"}}
settings |= json.load(open("openvino.json"))
model = ov.Core().compile_model("model.onnx", "CPU", settings)
inputs = {{
{inputs}
}}
for name, value in model(inputs).to_dict().items():
    print(name.get_any_name(), value.shape)
"""
_ONNXRUNTIME = """import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = {threads}
session = ort.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
inputs = {{
{inputs}
}}
for port, value in zip(session.get_outputs(), session.run(None, inputs)):
    print(port.name, value.shape)
"""
_CASCADE = """import planish  # takes the rows that are sure out of the batch after each stage

model = planish.load(".")
"""
_INDUCTOR = """import planish  # this engine compiles the saved graph again

model = planish.load(".")
"""


def loader(engine: str, signature: Signature, options: Options) -> str:
    """The program in the README: it feeds zeros of the right shape and prints the shapes of the results."""
    rows = []
    for name, kept, size, kind in zip(
        signature.inputs, signature.is_tensor, signature.sizes, signature.types, strict=True
    ):
        if kept:
            shape = [options.fixed.get(str(n), 2) if isinstance(n, str) else n for n in size]
            rows.append(f'    "{name}": np.zeros({shape}, np.{"bool_" if kind == "bool" else kind}),')
    template = {"openvino": _OPENVINO, "onnxruntime": _ONNXRUNTIME, "cascade": _CASCADE}.get(engine, _INDUCTOR)
    return template.format(threads=options.threads, inputs="\n".join(rows))


def readme(engine: str, signature: Signature, options: Options, cascade: bool) -> str:
    """The whole text; of a cascade, too."""
    how = "stage by stage" if cascade else "without Planish"
    return f"""# A compiled model

`artifact.json` says how it was made. It runs on {engine}{"" if engine == "inductor" else f" {how}"}:

```python
{loader("cascade" if cascade else engine, signature, options)}```
"""
