from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.training.planning.collectives import Group, gather, reduce, send
from planish.training.planning.constants import Constants
from planish.training.planning.hardware import Hardware

IDEAL = Constants(node=1.0, network=1.0)
H100 = Hardware.named("h100-sxm")


def test_a_ring_within_a_node_moves_all_but_ones_own() -> None:
    group = Group.of(H100, 8, 1)
    assert (group.within, group.nodes) == (8, 1)
    assert gather(group, 8e9, H100, IDEAL) == pytest.approx(7e9 / 450e9, rel=0.01)  # (p - 1) / p of it
    assert reduce(group, 8e9, H100, IDEAL) == pytest.approx(14e9 / 450e9, rel=0.01)


def test_a_group_over_nodes_uses_the_network_of_all_its_members() -> None:
    whole, strided = Group.of(H100, 16, 1), Group.of(H100, 16, 8)
    assert (whole.within, whole.nodes, strided.within, strided.nodes) == (8, 2, 1, 16)
    assert whole.bandwidth(H100, IDEAL) == 8 * 50e9
    assert strided.bandwidth(H100, IDEAL) == 50e9


def test_messages_know_whether_they_leave_the_node() -> None:
    assert send(450e9, 4, H100, IDEAL) == pytest.approx(1, rel=0.01)
    assert send(50e9, 8, H100, IDEAL) == pytest.approx(1, rel=0.01)


@given(st.integers(1, 10), st.integers(0, 6), st.floats(1, 1e10))
def test_more_devices_and_more_bytes_never_take_less(size: int, inner: int, total: float) -> None:
    one, two = Group.of(H100, 2**size, 2**inner), Group.of(H100, 2 ** (size + 1), 2**inner)
    for collective in (gather, reduce):
        seconds = collective(one, total, H100, IDEAL)
        assert 0 < seconds <= collective(one, 2 * total, H100, IDEAL)
        if one.within == two.within:
            assert seconds <= collective(two, total, H100, IDEAL)


def test_one_device_says_nothing() -> None:
    assert gather(Group.of(H100, 1, 1), 1e9, H100, IDEAL) == 0 == reduce(Group.of(H100, 1, 1), 1e9, H100, IDEAL)
