"""Whether a search by gradients has collapsed: chosen what is easy to mix instead of what is good.

Zela et al., "Understanding and Robustifying Differentiable Architecture Search" (arXiv 1909.09656), describe how
searches end with options without parameters. Two simple signs are looked for: most decisions took such an option, or
what was chosen does worse, with the very weights that chose it, than points drawn at random.
"""

from __future__ import annotations

import random
from statistics import median

from planish.automl.supernet.network import Item, Loss, Supernet
from planish.automl.supernet.rank import rank
from planish.automl.supernet.slots import Point

DRAWN = 32
SHARE = 0.75


def verdict(net: Supernet, chosen: Point, items: list[Item], loss: Loss, seed: int) -> str:
    """What there is to say against a choice; "" if nothing is.

    Args:
        net: Trained.
        chosen: The point.
        items: Validation data.
        loss: Of a module on an item.
        seed: Of the points that it is compared with.
    """
    signs = []
    empty = [slot.name for place, slot in enumerate(net.slots) if _is_empty(net, place, slot.index(chosen[slot.name]))]
    decisions = [place for place in range(len(net.slots)) if len(set(_sizes(net, place))) > 1]
    if decisions and len(empty) >= SHARE * len(decisions):
        signs.append(f"{len(empty)} of {len(decisions)} decisions took an option with the fewest parameters")
    chance = random.Random(seed)
    drawn = [net.point([chance.randrange(len(slot.labels)) for slot in net.slots]) for _ in range(DRAWN)]
    ((_, own),) = rank(net, [dict(chosen)], items, loss)
    others = [value for _, value in rank(net, drawn, items, loss)]
    if own >= median(others):
        worse = sum(own >= value for value in others)
        signs.append(f"with the shared weights it does no better than {worse} of {DRAWN} points drawn at random")
    return f"collapsed: {'; '.join(signs)}" if signs else ""


def _sizes(net: Supernet, place: int) -> list[int]:
    """For each option of a decision the parameters of the network, all other decisions at their first options."""
    choice = [0] * len(net.slots)
    sizes = []
    for option in range(len(net.slots[place].labels)):
        choice[place] = option
        sizes.append(net.parameters_of(choice))
    return sizes


def _is_empty(net: Supernet, place: int, option: int) -> bool:
    sizes = _sizes(net, place)
    return len(set(sizes)) > 1 and sizes[option] == min(sizes)
