"""What users of other tools would run for each case of `benchmarks.compression`: the best settings that each has.

A peer takes the calibration sentences and gives a callable `(input_ids, attention_mask) -> embeddings`. None sees the
judged sentences. All run the linear layers of the encoder and leave embeddings as they are, unless said otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from planish.models import minilm

Model = Callable[[Tensor, Tensor], Tensor]
Items = list[tuple[Tensor, Tensor]]
Peer = Callable[[Items], Model]


def _encoder() -> nn.Module:
    return copy.deepcopy(minilm.encoder())


def _linears(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}


# NNCF on OpenVINO -----------------------------------------------------------------------------------------------------


def _openvino_model(items: Items) -> Any:
    import openvino as ov

    shapes = [(ov.PartialShape([-1, -1]), ov.Type.i64)] * 2
    model = ov.convert_model(minilm.encoder(), example_input=items[0], input=shapes)
    for port, name in zip(model.inputs, ("input_ids", "attention_mask"), strict=True):
        port.get_tensor().set_names({name})
    return model


def _feeds(items: Items) -> list[dict[str, Any]]:
    return [{"input_ids": ids.numpy(), "attention_mask": mask.numpy()} for ids, mask in items]


def _run(model: Any) -> Model:
    import openvino as ov

    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda ids, mask: torch.from_numpy(compiled([ids.numpy(), mask.numpy()])[0].copy())


def nncf_weights(mode: str, group: int = -1, **options: Any) -> Peer:
    """`nncf.compress_weights`; embeddings become 8-bit, as is its default."""

    def peer(items: Items) -> Model:
        import nncf

        data = nncf.Dataset(_feeds(items))
        model = nncf.compress_weights(
            _openvino_model(items),
            mode=nncf.CompressWeightsMode(mode),
            dataset=data,
            group_size=group,
            ratio=1.0,
            subset_size=128,
            **options,
        )
        return _run(model)

    return peer


def nncf_w8a8(alpha: float | None = None) -> Peer:
    """`nncf.quantize` with the transformer preset."""

    def peer(items: Items) -> Model:
        import nncf

        options: dict[str, Any] = {}
        if alpha is not None:
            smooth = nncf.AdvancedSmoothQuantParameters(matmul=alpha)
            options["advanced_parameters"] = nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smooth)
        data = nncf.Dataset(_feeds(items))
        model = nncf.quantize(
            _openvino_model(items), data, subset_size=128, model_type=nncf.ModelType.TRANSFORMER, **options
        )
        return _run(model)

    return peer


# ONNX Runtime ---------------------------------------------------------------------------------------------------------


def onnxruntime_4bit(algorithm: str, block: int = 32) -> Peer:
    """ONNX Runtime's 4-bit `MatMulNBits` weights, rounded to the nearest or by HQQ; embeddings stay float."""

    def peer(items: Items) -> Model:
        import onnx
        import onnxruntime as ort
        from onnxruntime.quantization import matmul_nbits_quantizer as nbits

        kinds = {"rtn": nbits.DefaultWeightOnlyQuantConfig, "hqq": nbits.HQQWeightOnlyQuantConfig}
        names = ["input_ids", "attention_mask"]
        with TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            axes = {name: {0: "batch", 1: "sequence"} for name in names}
            torch.onnx.export(
                minilm.encoder(), items[0], file, input_names=names, dynamic_axes=axes, dynamo=False, opset_version=17
            )
            quantizer = nbits.MatMulNBitsQuantizer(
                onnx.load(str(file)), algo_config=kinds[algorithm](block_size=block, bits=4)
            )
            quantizer.process()
            session = ort.InferenceSession(quantizer.model.model.SerializeToString())
        return lambda ids, mask: torch.from_numpy(
            session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
        )

    return peer


# torchao --------------------------------------------------------------------------------------------------------------


def torchao(config: Callable[[], Any], kind: torch.dtype = torch.float32) -> Peer:
    """`torchao.quantization.quantize_` with a config, what is not quantized in `kind`."""

    def peer(_items: Items) -> Model:
        from torchao.quantization import quantize_

        module = _encoder().to(kind)
        quantize_(module, config())
        return _eager(module)

    return peer


def int4_groups(group: int = 32) -> Any:
    """4-bit weights in groups."""
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup

    return IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(group))


def int8_dynamic() -> Any:
    """8-bit weights, 8-bit activations with a scale for each token."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    return Int8DynamicActivationInt8WeightConfig()


def mxfp4() -> Any:
    """MXFP4 weights and activations, emulated."""
    from torchao.prototype.mx_formats import MXDynamicActivationMXWeightConfig
    from torchao.quantization.quantize_.common import KernelPreference

    return MXDynamicActivationMXWeightConfig(
        activation_dtype=torch.float4_e2m1fn_x2,
        weight_dtype=torch.float4_e2m1fn_x2,
        kernel_preference=KernelPreference.EMULATED,
    )


def torchao_wanda(structured: bool = False, then: Callable[[], Any] | None = None) -> Peer:
    """Wanda as torchao has it, 50 % or 2:4; and quantized afterwards, if asked."""

    def peer(items: Items) -> Model:
        from torchao.quantization import quantize_
        from torchao.sparsity import WandaSparsifier

        module = _encoder()
        sparsifier = WandaSparsifier(sparsity_level=0.5, semi_structured_block_size=4 if structured else None)
        sparsifier.prepare(module, [{"tensor_fqn": f"{name}.weight"} for name in _linears(module)])
        with torch.no_grad():
            for ids, mask in items:
                module(ids, mask)
        sparsifier.step()
        sparsifier.squash_mask()
        if then is not None:
            quantize_(module, then())
        return _eager(module)

    return peer


def magnitude(_items: Items) -> Model:
    """`torch.nn.utils.prune`: half of each layer's weights, the smallest."""
    from torch.nn.utils import prune

    module = _encoder()
    for layer in _linears(module).values():
        prune.l1_unstructured(layer, "weight", amount=0.5)
        prune.remove(layer, "weight")
    return _eager(module)


# Torch-Pruning --------------------------------------------------------------------------------------------------------


def llm_compressor(*modifiers: tuple[str, dict[str, Any]]) -> Peer:
    """`llmcompressor.oneshot` with modifiers by name; an encoder has no causal layers to go through one by one."""

    def peer(items: Items) -> Model:
        import llmcompressor.modifiers.pruning as pruning
        import llmcompressor.modifiers.quantization as quantization
        from llmcompressor import oneshot
        from torch.utils.data import DataLoader

        module = _encoder()
        known = {**vars(quantization), **vars(pruning)}
        steps = [known[name](targets="Linear", **options) for name, options in modifiers]
        rows: Any = [{"input_ids": ids, "attention_mask": mask} for ids, mask in items]
        oneshot(
            model=module.encoder,
            dataset=DataLoader(rows, batch_size=None),
            recipe=steps,
            pipeline="basic",
            num_calibration_samples=len(rows),
        )
        return _eager(module)

    return peer


W4_GROUPS = {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "group", "group_size": 32}}}
W8A8 = {"scheme": "W8A8"}


def torch_pruning(items: Items) -> Model:
    """Torch-Pruning's dependency graph: the feed-forward neurons by magnitude, to half the multiply-accumulates."""
    import torch_pruning as tp

    module = _encoder()
    layers = [module.encoder.encoder.layer[place] for place in range(6)]
    inner = [layer.intermediate.dense for layer in layers]
    kept = [layer for layer in _linears(module).values() if layer not in inner]
    # attention stays: 64 of 192 units of work; so a quarter of the neurons' 128 is left for half of all
    pruner = tp.pruner.MetaPruner(
        module,
        example_inputs={"input_ids": items[0][0], "attention_mask": items[0][1]},
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.75,
        ignored_layers=[*kept, module.encoder.embeddings],
    )
    pruner.step()
    return _eager(module)


def _eager(module: nn.Module) -> Model:
    module.eval()

    def call(ids: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return module(ids, mask).float()

    return call


PEERS: dict[str, dict[str, Peer]] = {
    "w8a8": {
        "NNCF transformer preset": nncf_w8a8(),
        "NNCF, smoothing .85": nncf_w8a8(0.85),
        "torchao int8 dynamic (a scale a token)": torchao(int8_dynamic),
        "llm-compressor GPTQ W8A8 (a scale a token)": llm_compressor(("GPTQModifier", W8A8)),
    },
    "w4": {
        "NNCF int4 g32 AWQ + scale estimation": nncf_weights("int4_sym", 32, awq=True, scale_estimation=True),
        "NNCF int4 g32 GPTQ": nncf_weights("int4_sym", 32, gptq=True),
        "NNCF int4 g32 asymmetric, scale estimation": nncf_weights("int4_asym", 32, scale_estimation=True),
        "ONNX Runtime 4 bits g32": onnxruntime_4bit("rtn"),
        "ONNX Runtime 4 bits g32 HQQ": onnxruntime_4bit("hqq"),
        "torchao int4 g32": torchao(int4_groups),
        "llm-compressor GPTQ int4 g32": llm_compressor(("GPTQModifier", {"config_groups": W4_GROUPS})),
    },
    "mxfp4": {"torchao MXFP4, the rest in bfloat16": torchao(mxfp4, torch.bfloat16)},
    "sparse-50": {
        "magnitude (torch)": magnitude,
        "torchao Wanda": torchao_wanda(),
        "llm-compressor SparseGPT": llm_compressor(("SparseGPTModifier", {"sparsity": 0.5})),
    },
    "2of4-w8a8": {
        "torchao Wanda 2:4, int8 dynamic": torchao_wanda(structured=True, then=int8_dynamic),
        "llm-compressor SparseGPT 2:4, GPTQ W8A8": llm_compressor(
            ("SparseGPTModifier", {"sparsity": 0.5, "mask_structure": "2:4"}), ("GPTQModifier", W8A8)
        ),
    },
    "structured": {"Torch-Pruning, neurons": torch_pruning},
}


def peers(case: str) -> Iterable[tuple[str, Peer]]:
    """The peers that can do a case; a recovered one has those of its one-shot form, and W8A8 is one for all."""
    known = "w8a8" if case.startswith("w8a8") else case.removesuffix("-recovered")
    return PEERS.get(known, {}).items()
