from __future__ import annotations

import json
import pickle

import pytest
import torch
from tests.models.tiny import save_llama
from tests.support import require

from planish import models
from planish.errors import ModelError, UntrustedFile
from planish.models import pretrained

transformers = require("transformers")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("llama"))


def test_a_local_directory_is_a_task(llama):
    task = models.load(str(llama))
    assert task.name == llama.name
    assert sorted(task.kwargs) == ["attention_mask", "input_ids"]
    assert task.kwargs["input_ids"].shape == (2, 32)
    assert task.dynamic == {name: {0: "batch", 1: "sequence"} for name in task.kwargs}
    headline, sqnr = task.judge()
    assert headline.value == pytest.approx(1)
    assert "random" in headline.details["data"]
    assert sqnr.value > 140


def test_a_decoding_step_equals_the_whole_sequence(llama):
    task = pretrained.load(str(llama), sequence=8, cache=True)
    assert task.kwargs["input_ids"].shape == (2, 1)
    prompt = pretrained.example_inputs(task.model, 2, 8)["input_ids"]
    whole = torch.cat([prompt, task.kwargs["input_ids"]], dim=1)
    with torch.no_grad():
        step = task.model(**task.kwargs)
        torch.testing.assert_close(step.logits[:, -1], task.model(input_ids=whole).logits[:, -1])
    assert step.past_key_values.get_seq_length() == 9


def vision(**size):
    return transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        **size,
    )


@pytest.mark.parametrize(
    ("build", "shapes"),
    [
        (lambda: transformers.ViTForImageClassification(vision()), {"pixel_values": (2, 3, 32, 32)}),
        (
            lambda: transformers.T5ForConditionalGeneration(
                transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
            ),
            {"input_ids": (2, 32), "attention_mask": (2, 32), "decoder_input_ids": (2, 8)},
        ),
        (
            lambda: transformers.BertModel(
                transformers.BertConfig(
                    vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
                )
            ),
            {"input_ids": (2, 32), "attention_mask": (2, 32)},
        ),
    ],
    ids=["vit", "t5", "bert"],
)
def test_inputs_fit_the_architecture(build, shapes, tmp_path):
    build().save_pretrained(tmp_path)
    task = pretrained.load(str(tmp_path))
    assert {name: tuple(value.shape) for name, value in task.kwargs.items()} == shapes
    with torch.no_grad():
        task.model(**task.kwargs)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_pickled_weights_are_refused_unread(llama, tmp_path):
    (tmp_path / "config.json").write_text((llama / "config.json").read_text())
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "owned")))
    with pytest.raises(UntrustedFile, match=r"pytorch_model\.bin") as caught:
        models.load(str(tmp_path))
    assert "safe_serialization" in caught.value.hint
    assert not (tmp_path / "owned").exists()


def test_code_beside_a_model_is_never_run(llama, tmp_path):
    config = json.loads((llama / "config.json").read_text())
    marker = tmp_path / "owned"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Net: pass\n")
    (tmp_path / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    own = {**config, "architectures": ["Net"], "auto_map": {"AutoModel": "evil.Net", "AutoConfig": "evil.Net"}}
    for broken in (own, {**own, "model_type": "evil"}):
        (tmp_path / "config.json").write_text(json.dumps(broken))
        with pytest.raises(UntrustedFile, match="its own code"):
            models.load(str(tmp_path))
    assert not marker.exists()


def test_a_damaged_or_missing_file_is_named(llama, tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        models.load(str(tmp_path))
    (tmp_path / "config.json").write_text((llama / "config.json").read_text())
    with pytest.raises(ModelError, match="no weights"):
        models.load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes()[:500])
    with pytest.raises(ModelError, match="damaged"):
        models.load(str(tmp_path))
    (tmp_path / "config.json").write_text("{ not json")
    with pytest.raises(ModelError):
        models.load(str(tmp_path))


def test_a_hub_out_of_reach_is_said_so(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="hub") as caught:
        models.load("planish-tests/no-such-model")
    assert caught.value.exit_code == 2
