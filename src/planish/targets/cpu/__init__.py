"""The CPU target: OpenVINO, ONNX Runtime and Inductor, fed from one graph."""

from planish.targets.cpu.artifact import CpuArtifact, load
from planish.targets.cpu.engine import ENGINES
from planish.targets.cpu.target import Cpu

__all__ = ["ENGINES", "Cpu", "CpuArtifact", "load"]
