"""Trains the networks whose weights are part of the package, each from a fixed seed.

    python -m benchmarks.train_tasks fashion_cnn              # until it is done
    python -m benchmarks.train_tasks fashion_vit --minutes 9  # or so long; the same command goes on where it stopped

Each epoch draws from a seed of its own and leaves a checkpoint beside the cache, so that a stopped run ends with the
weights of an unstopped one. What is written at the end is rounded to float16, judged as it is rounded, and the result
is kept in the file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from planish.models import fashion, letters, sentiment
from planish.models.data import cache_folder
from planish.models.mlp import MLP
from planish.models.vit import ViT
from planish.models.weights import rounded, write_weights


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        build: Makes the untrained network.
        data: Inputs and labels of a split.
        epochs: Times through the training data.
        rate: The largest learning rate of the cycle.
        decay: AdamW's weight decay.
        forward: The network's output in training, with the share of the training that is done; by default a call.
        augment: Changes a batch of inputs.
        size: Of a batch.
    """

    build: Callable[[], nn.Module]
    data: Callable[[str], tuple[Tensor, Tensor]]
    epochs: int
    rate: float
    decay: float = 0.05
    forward: Callable[[nn.Module, Tensor, float], Tensor] = lambda model, x, done: model(x)
    augment: Callable[[Tensor], Tensor] = lambda x: x
    size: int = 128


def mirrored(x: Tensor) -> Tensor:
    """Half of the images, chosen at random, mirrored."""
    return torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)


def with_fewer_tokens(model: nn.Module, image: Tensor, done: float) -> Tensor:
    """A vision transformer on a random share of its tokens: an eighth at first, a quarter in the last epochs.

    Liu et al., "PatchDropout" (2022): as accurate, and far cheaper.
    """
    assert isinstance(model, ViT)
    x_BTD = model.patch_embed(image) + model.pos_embed[:, 1:]
    share = 0.125 if done < 0.75 else 0.25
    kept = torch.rand(x_BTD.shape[:2]).topk(int(share * x_BTD.shape[1])).indices
    x_BTD = x_BTD.gather(1, kept.unsqueeze(2).expand(-1, -1, x_BTD.shape[2]))
    first = (model.cls_token + model.pos_embed[:, :1]).expand(len(x_BTD), -1, -1)
    return model.head(model.norm(model.blocks(torch.cat([first, x_BTD], 1)))[:, 0])


PLANS: dict[str, Plan] = {
    "letters": Plan(lambda: MLP(letters.WIDTHS), letters.letters, epochs=80, rate=4e-3, decay=0.02),  # type: ignore[arg-type]
    "minilm_sentiment": Plan(lambda: nn.Linear(384, 2), sentiment.embeddings, epochs=60, rate=0.1, decay=1e-3),  # type: ignore[arg-type]
    "fashion_cnn": Plan(fashion.FashionNet, fashion.images, epochs=8, rate=4e-3, augment=mirrored),  # type: ignore[arg-type]
    "fashion_vit": Plan(
        fashion.fashion_vit,
        fashion.images,  # type: ignore[arg-type]
        epochs=10,
        rate=2e-3,
        forward=with_fewer_tokens,
        augment=mirrored,
    ),
}


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> tuple[int, int]:
    """How many are right, of how many."""
    model.eval()
    with torch.no_grad():
        right = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(100), y.split(100), strict=True))
    return right, len(x)


def train(name: str, minutes: float) -> bool:
    """Train, or go on training; whether it is done."""
    plan, started = PLANS[name], time.monotonic()
    file = cache_folder() / "training" / f"{name}.pt"
    torch.manual_seed(0)
    model = plan.build()
    x, y = plan.data("train")
    steps = len(x) // plan.size
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=plan.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.rate, total_steps=plan.epochs * steps)
    first = 0
    if file.exists():
        kept = torch.load(file, weights_only=True)
        first = kept["epochs"]
        for part, state in ((model, kept["model"]), (optimizer, kept["optimizer"]), (schedule, kept["schedule"])):
            part.load_state_dict(state)
    for epoch in range(first, plan.epochs):
        torch.manual_seed(1000 + epoch)
        model.train()
        begun, total = time.monotonic(), 0.0
        for step, rows in enumerate(torch.randperm(len(x))[: steps * plan.size].split(plan.size)):
            optimizer.zero_grad()
            done = (epoch + step / steps) / plan.epochs
            loss = functional.cross_entropy(
                plan.forward(model, plan.augment(x[rows]), done), y[rows], label_smoothing=0.05
            )
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        took = time.monotonic() - begun
        print(f"{name}: epoch {epoch + 1} of {plan.epochs}, loss {total / steps:.4f}, {took:.0f} s", flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save({"epochs": epoch + 1, **state}, file)
        if epoch + 1 < plan.epochs and time.monotonic() - started + took > 60 * minutes:
            return False
    rounded(model)
    right, count = accuracy(model, *plan.data("evaluation"))
    print(write_weights(name, model, f"{right / count:.2%} of {count:,} right"), f"{right} of {count}")
    file.unlink()
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=list(PLANS))
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after the epoch that ends before this")
    given = parser.parse_args()
    if not train(given.name, given.minutes):
        print("stopped; the same command goes on")
