from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tests.support import require

from planish import models
from planish.models.images import dead_leaves
from planish.models.mobilenet import MobileNetV2
from planish.models.resnet import R3D18, ResNet18
from planish.models.unet import UNet
from planish.models.vit import ViT

# published counts: torchvision's ResNet-18, MobileNetV2 and R3D-18 (Kinetics-400), timm's vit_tiny_patch16_224
PUBLISHED = [(ResNet18, 11_689_512), (MobileNetV2, 3_504_872), (R3D18, 33_371_472), (ViT, 5_717_416)]
LARGE = ("minilm", "minilm_sentiment", "fashion_cnn", "fashion_vit", "letters")  # their data is fetched: own tests
SMALL = {"resnet18": {"size": 64, "count": 4}, "mobilenet_v2": {"size": 64, "count": 4}, "vit_tiny": {"count": 4}}
SMALL |= {"unet": {"size": 32, "count": 4}, "r3d18": {"size": 32, "frames": 4, "count": 4}}


@pytest.fixture
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize(("build", "count"), PUBLISHED)
def test_parameters_are_as_many_as_published(build, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == count


def test_names_are_those_of_the_checkpoints():
    with torch.device("meta"):
        resnet, mobilenet, video, vit = (set(build().state_dict()) for build, _ in PUBLISHED)
    assert {"layer2.0.downsample.1.running_var", "layer4.1.conv2.weight", "fc.bias"} <= resnet
    assert {"features.0.0.weight", "features.1.conv.1.weight", "features.18.1.bias", "classifier.1.weight"} <= mobilenet
    assert {"stem.0.weight", "layer1.0.conv1.0.weight", "layer2.0.downsample.0.weight"} <= video
    assert {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.11.attn.qkv.bias",
        "blocks.0.mlp.fc2.weight",
    } <= vit


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", [n for n in models.models if n not in LARGE])
def test_task_runs_and_matches_its_card(name):
    require("sklearn")
    task = models.get(name)(**SMALL.get(name, {}))
    card = models.cards[name]
    assert sum(p.numel() for p in task.model.parameters()) == card.parameters
    assert task.family == card.family
    assert task.name == name
    assert not task.model.training
    headline, *_ = task.judge()
    assert headline.name == card.metric
    assert task.validation
    if headline.name == "accuracy":
        assert headline.value > 0.95
    if headline.name == "sqnr":
        assert headline.value > 140
    with torch.no_grad():
        one, two = (task.model(*(a[:n] for a in task.args)) for n in (1, 2))
    first = one[0] if isinstance(one, tuple) else one
    whole = two[0] if isinstance(two, tuple) else two
    torch.testing.assert_close(first, whole[:1], rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.usefixtures("cache")
def test_training_is_repeatable_and_kept(monkeypatch, tmp_path):
    require("sklearn")
    task = models.get("mlp")()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    again = models.get("mlp")()
    kept = models.get("mlp")()
    for name, value in task.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=1e-3, atol=1e-3)
        assert torch.equal(kept.model.state_dict()[name], again.model.state_dict()[name])
    (file,) = (tmp_path / "planish" / "digits").iterdir()
    file.write_bytes(b"torn")
    assert models.get("mlp")().judge()[0].value > 0.95


def test_factories_leave_the_random_state_alone():
    state = torch.random.get_rng_state()
    models.get("vit_tiny")(count=4)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_unet_needs_no_fixed_size():
    net = UNet(num_classes=3, width=4).eval()
    assert net(torch.zeros(1, 3, 32, 48)).shape == (1, 3, 32, 48)


def test_dead_leaves_are_repeatable_and_structured():
    images = dead_leaves(3, 128)
    assert torch.equal(images, dead_leaves(3, 128))
    assert not torch.equal(images, dead_leaves(3, 128, seed=1))
    torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(3), rtol=1e-3, atol=1e-3)
    neighbors = torch.corrcoef(torch.stack([images[..., 1:].flatten(), images[..., :-1].flatten()]))[0, 1]
    assert neighbors > 0.7  # white noise: 0


def test_listing_imports_no_torch():
    code = "import sys; from planish import models; models.cards, list(models.models); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_model_has_a_card():
    assert models.cards.keys() == set(models.models)
