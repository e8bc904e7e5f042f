"""The capture battery's models, small but of the real architectures, each with example inputs and what may vary.

Weights are random: what is tested is that every architecture is captured exactly, not what it predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.support import require
from torch import nn

from planish.models.lstm import LSTMClassifier
from planish.models.mlp import MLP
from planish.models.mobilenet import MobileNetV2
from planish.models.resnet import R3D18, ResNet18
from planish.models.unet import UNet
from planish.models.vae import VAE
from planish.models.vit import ViT


@dataclass(frozen=True)
class Family:
    """A model, a call of it, and the axes that may vary."""

    model: nn.Module
    example: dict[str, Any]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)


def _ids(batch: int = 2, length: int = 8, vocabulary: int = 99) -> torch.Tensor:
    return torch.randint(3, vocabulary, (batch, length))


def _batch(*names: str) -> dict[str, dict[int, str]]:
    return {name: {0: "batch"} for name in names}


_SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def _text(name: str, model: str, **options: Any) -> Callable[[], Family]:
    def build() -> Family:
        hf = require("transformers")
        network = getattr(hf, model)(getattr(hf, f"{name}Config")(**options))
        return Family(
            network,
            {"input_ids": _ids(), "attention_mask": torch.ones(2, 8, dtype=torch.long)},
            _batch("input_ids", "attention_mask"),
        )

    return build


def _causal(name: str, with_cache: bool, **options: Any) -> Callable[[], Family]:
    def build() -> Family:
        hf = require("transformers")
        network = getattr(hf, f"{name}ForCausalLM" if name != "GPT2" else "GPT2LMHeadModel")(
            getattr(hf, f"{name}Config")(**options)
        )
        example: dict[str, Any] = {"input_ids": _ids(), "use_cache": with_cache}
        dynamic = _batch("input_ids")
        if with_cache:
            with torch.no_grad():
                cache = network.eval()(input_ids=_ids(), use_cache=True).past_key_values
            example["past_key_values"] = cache
            dynamic["past_key_values"] = {0: "batch"}
        return Family(network, example, dynamic)

    return build


def _own(model: Callable[[], nn.Module], **inputs: tuple[int, ...]) -> Callable[[], Family]:
    def build() -> Family:
        return Family(model(), {name: torch.randn(shape) for name, shape in inputs.items()}, _batch(*inputs))

    return build


def _image(name: str, model: str, **options: Any) -> Callable[[], Family]:
    def build() -> Family:
        hf = require("transformers")
        network = getattr(hf, model)(getattr(hf, f"{name}Config")(image_size=32, patch_size=8, **_vision(), **options))
        return Family(network, {"pixel_values": torch.randn(2, 3, 32, 32)}, _batch("pixel_values"))

    return build


def _vision() -> dict[str, int]:
    return {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def _t5() -> Family:
    hf = require("transformers")
    options = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
    network = hf.T5ForConditionalGeneration(hf.T5Config(**options, decoder_start_token_id=0))
    return Family(
        network,
        {"input_ids": _ids(), "decoder_input_ids": _ids(length=5), "use_cache": False},
        _batch("input_ids", "decoder_input_ids"),
    )


def _whisper() -> Family:
    hf = require("transformers")
    config = hf.WhisperConfig(
        vocab_size=99,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=16,
        max_source_positions=20,
        max_target_positions=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    return Family(
        hf.WhisperForConditionalGeneration(config),
        {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": _ids(length=5), "use_cache": False},
        _batch("input_features", "decoder_input_ids"),
    )


def _clip() -> Family:
    hf = require("transformers")
    text = {**_SMALL, "eos_token_id": 2}
    vision = {**_vision(), "image_size": 32, "patch_size": 8}
    network = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    return Family(
        network,
        {
            "input_ids": _ids(),
            "pixel_values": torch.randn(2, 3, 32, 32),
            "attention_mask": torch.ones(2, 8, dtype=torch.long),
        },
        _batch("input_ids", "attention_mask", "pixel_values"),
    )


def _mamba() -> Family:
    hf = require("transformers")
    options = {"vocab_size": 99, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
    network = hf.MambaForCausalLM(hf.MambaConfig(**options))
    return Family(network, {"input_ids": _ids(), "use_cache": False}, _batch("input_ids"))


def _unet2d() -> Family:
    diffusers = require("diffusers")
    network = diffusers.UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return Family(
        network, {"sample": torch.randn(2, 3, 16, 16), "timestep": torch.tensor([3, 7])}, _batch("sample", "timestep")
    )


def _autoencoder() -> Family:
    diffusers = require("diffusers")
    network = diffusers.AutoencoderKL(
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
    )
    return Family(network, {"sample": torch.randn(2, 3, 16, 16)}, _batch("sample"))


def _dit() -> Family:
    diffusers = require("diffusers")
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        norm_num_groups=8,
    )
    for block in network.transformer_blocks:  # label dropout draws random labels in training: another computation
        block.norm1.emb.class_embedder.dropout_prob = 0.0
    return Family(
        network,
        {
            "hidden_states": torch.randn(2, 4, 8, 8),
            "timestep": torch.tensor([3, 7]),
            "class_labels": torch.tensor([1, 2]),
        },
        _batch("hidden_states", "timestep", "class_labels"),
    )


def _graph_network(layer: str) -> Callable[[], Family]:
    def build() -> Family:
        geometric = require("torch_geometric.nn")
        convolution = {
            "GCN": lambda a, b: geometric.GCNConv(a, b),
            "GAT": lambda a, b: geometric.GATConv(a, b),
            "GIN": lambda a, b: geometric.GINConv(nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, b))),
        }[layer]

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.second = convolution(8, 16), convolution(16, 4)
                self.dropout = nn.Dropout(0.5)

            def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
                return self.second(self.dropout(torch.relu(self.first(x, edge_index))), edge_index)

        return Family(
            Net(),
            {"x": torch.randn(6, 8), "edge_index": torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])},
            {"x": {0: "nodes"}},
        )

    return build


_LLAMA = {**_SMALL, "num_key_value_heads": 2}

FAMILIES: dict[str, Callable[[], Family]] = {
    "mlp": _own(MLP, x=(2, 64)),
    "resnet18": _own(lambda: ResNet18(width=16), x=(2, 3, 64, 64)),
    "mobilenet_v2": _own(lambda: MobileNetV2(width=0.5), x=(2, 3, 64, 64)),
    "unet": _own(lambda: UNet(width=8), x=(2, 3, 32, 32)),
    "r3d18": _own(lambda: R3D18(width=8), x=(2, 3, 8, 32, 32)),
    "vae": _own(VAE, image=(2, 64), noise=(2, 8)),
    "lstm": _own(LSTMClassifier, x=(2, 8, 8)),
    "vit_tiny": _own(ViT, image=(2, 3, 224, 224)),
    "bert": _text("Bert", "BertModel", **_SMALL),
    "distilbert": _text("DistilBert", "DistilBertModel", vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=64),
    "roberta": _text("Roberta", "RobertaModel", **_SMALL),
    "gpt2": _causal("GPT2", False, vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gpt2-cache": _causal("GPT2", True, vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "llama": _causal("Llama", False, **_LLAMA),
    "llama-cache": _causal("Llama", True, **_LLAMA),
    "mixtral": _causal("Mixtral", False, **_LLAMA, num_local_experts=4, experts_implementation="batched_mm"),
    "t5": _t5,
    "vit": _image("ViT", "ViTForImageClassification"),
    "deit": _image("DeiT", "DeiTForImageClassification"),
    "whisper": _whisper,
    "clip": _clip,
    "mamba": _mamba,
    "unet2d": _unet2d,
    "autoencoder-kl": _autoencoder,
    "dit": _dit,
    "gcn": _graph_network("GCN"),
    "gat": _graph_network("GAT"),
    "gin": _graph_network("GIN"),
}

QUICK = ("mlp", "unet", "lstm", "bert", "llama-cache", "gcn")
"""One of each kind, for `make test`; the long suites take all."""
