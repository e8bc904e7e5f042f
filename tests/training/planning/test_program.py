from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from planish.errors import OptionError
from planish.training.planning.fold import unfolded
from planish.training.planning.hardware import Hardware
from planish.training.planning.operations import Operations
from planish.training.planning.program import STATE, Program
from planish.training.planning.setting import Setting
from planish.training.planning.steptime import Model
from tests.training.planning.models import large, small, toy

H100 = Hardware.named("h100-sxm")


def placements(program: Program, **options: object) -> dict[str, str]:
    chosen = program.solve(**options).chosen  # type: ignore[arg-type]
    return {str(node.target): each.output for node, each in chosen.items() if node.op == "get_attr"}


@pytest.mark.parametrize("layers", [4, pytest.param(8, marks=pytest.mark.long)])
def test_folded_is_within_a_percent_of_unfolded(layers: int) -> None:
    operations = Operations(large(layers))
    model = Model(H100, Setting(tp=8, precision="bf16"))
    one = Program(operations, model, 2).solve()
    other = Program(operations, model, 2, unfolded(operations.graph)).solve()
    assert one.seconds == pytest.approx(other.seconds, rel=0.01)


def test_a_transformer_is_divided_as_megatron_does() -> None:
    found = placements(Program(Operations(large(2)), Model(H100, Setting(tp=8, precision="bf16")), 2))
    for name in ("query", "key", "value", "up"):
        assert found[f"blocks.1.{name}.weight"] == "S0"
        assert found[f"blocks.1.{name}.bias"] == "S0"
    for name in ("out", "down"):
        assert found[f"blocks.1.{name}.weight"] == "S1"
        assert found[f"blocks.1.{name}.bias"] == "R"
    assert found["blocks.0.norm1.weight"] == "R"


def test_it_moves_what_megatron_moves() -> None:
    operations = Operations(large(2))
    solution = Program(operations, Model(H100, Setting(tp=8, precision="bf16")), 2).solve()
    tensor = 2 * 1024 * 4096 * 2  # bytes of one activation: two all-reduces a block each way (arXiv 1909.08053)
    blocks = {node: size for node, size in solution.moved.items() if "blocks" in str(node.meta.get("nn_module_stack"))}
    assert sum(blocks.values()) == 4 * tensor
    assert sum(size for node, size in solution.moved_backward.items() if node in blocks or size == tensor) >= 4 * tensor


def test_no_other_choice_of_parameters_is_better() -> None:
    """Every assignment of one block's strategies, by brute force over the parameters that matter."""
    operations = Operations(small(1))
    program = Program(operations, Model(toy(), Setting(tp=4)), 4)
    best = program.solve()
    nodes = {str(node.target): node for node in program.strategies if node.op == "get_attr"}
    free = [nodes[f"blocks.0.{name}.weight"] for name in ("query", "key", "value", "out", "up", "down")]
    original = dict(program.strategies)
    for combination in itertools.product(*(original[node] for node in free[3:])):
        program.strategies.update({node: (each,) for node, each in zip(free[3:], combination, strict=True)})
        assert program.solve().seconds >= best.seconds * (1 - 1e-6)


def test_the_objective_is_what_the_evaluation_says() -> None:
    operations = Operations(small(2))
    program = Program(operations, Model(toy(), Setting(tp=2)), 4)
    solution = program.solve()
    assert program.evaluate(solution.chosen).seconds == pytest.approx(solution.seconds)


def test_little_memory_divides_more() -> None:
    operations = Operations(small(2))
    model = Model(replace(toy(), peak={"fp32": 1e15}, bandwidth=1e20), Setting(tp=2))
    program = Program(operations, model, 4)
    whole = STATE * sum(operations.graph.tensors[name].numel() for name in operations.graph.parameter_names)
    assert set(placements(program).values()) == {"R"}
    assert "S0" in placements(program, memory=0.7 * whole).values()
    with pytest.raises(OptionError, match="B a device, and there are"):
        program.solve(memory=0.1 * whole)
