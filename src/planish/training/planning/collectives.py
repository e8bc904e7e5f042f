"""Seconds of collectives: latency and bandwidth of rings over the links that a group of devices has.

A group is a part of an axis of the mesh. Axes lie innermost first over the nodes: tp's neighbors are next to each
other, then those of fsdp, dp and pp. A group that spans nodes runs as many rings as it has members in a node, so that
it is as fast as the slower of a device's link within the node and all its members' links to the network.
"""

from __future__ import annotations

from dataclasses import dataclass

from planish.training.planning.constants import Constants
from planish.training.planning.hardware import Hardware


@dataclass(frozen=True)
class Group:
    """Devices that talk to each other: `size` of them, `within` in each node."""

    size: int
    within: int

    @classmethod
    def of(cls, hardware: Hardware, size: int, inner: int) -> Group:
        """`size` devices whose neighbors are `inner` devices apart."""
        return cls(size, max(1, min(size, hardware.per_node // inner if inner <= hardware.per_node else 1)))

    @property
    def nodes(self) -> int:
        """How many nodes it spans."""
        return -(-self.size // self.within)

    def bandwidth(self, hardware: Hardware, constants: Constants) -> float:
        """What each member gets of a ring, B/s."""
        node = hardware.node.bandwidth * constants.node
        if self.nodes == 1:
            return node
        network = hardware.network.bandwidth * constants.network * self.within
        return network if self.within == 1 else min(node, network)

    def ring(self, hardware: Hardware, constants: Constants) -> float:
        """Seconds that the first byte takes around a ring: a step within a node is short."""
        near, far = self.size - self.nodes, self.nodes if self.nodes > 1 else 0
        return constants.latency * (near * hardware.node.step + far * hardware.network.latency)


def gather(group: Group, total: float, hardware: Hardware, constants: Constants, messages: int = 1) -> float:
    """Seconds of an all-gather or reduce-scatter of a tensor of `total` bytes, in so many messages.

    Both pass a ring once, so that what they take to start grows with the group.
    """
    if group.size == 1:
        return 0.0
    moved = total * (group.size - 1) / group.size
    start = hardware.node.latency + group.ring(hardware, constants)
    return moved / (group.bandwidth(hardware, constants) * constants.sharding) + messages * start


def reduce(group: Group, total: float, hardware: Hardware, constants: Constants, messages: float = 1) -> float:
    """Seconds of an all-reduce of a tensor of `total` bytes, in so many messages: scattered, then gathered, along trees
    through the nodes."""
    if group.size == 1:
        return 0.0
    moved = 2 * total * (group.size - 1) / group.size
    depth = (group.nodes - 1).bit_length() * hardware.network.latency
    start = hardware.node.latency + 2 * constants.latency * (depth + (group.within - 1) * hardware.node.step)
    return moved / group.bandwidth(hardware, constants) + messages * start


def send(total: float, apart: int, hardware: Hardware, constants: Constants) -> float:
    """Seconds of one message of `total` bytes between devices that are `apart` places from each other."""
    near = apart < hardware.per_node
    link, share = (hardware.node, constants.node) if near else (hardware.network, constants.network)
    return total / (link.bandwidth * share) + link.latency
