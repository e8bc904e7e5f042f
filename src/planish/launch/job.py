"""`Job`: what is run, and on what kind of machines; and the torchrun command that all engines start."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from planish.errors import OptionError
from planish.training.parallel import Plan

PLAN, PORT = "plan.toml", 29400
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Set to 1, a training goes on after a worker was killed; torchrun's own default leaves it waiting for its store."""


@dataclass(frozen=True)
class Job:
    """A training, and the machines that it is given.

    Attributes:
        command: The command line after `planish`: `("train", MODEL, ...)`, without the plan.
        per_node: Devices of a machine.
        name: What queues and clusters call it: small letters, digits and dashes.
        restarts: How often workers that die are started again.
        accelerator: Kind of the devices, where a cloud must choose ("H100"); "" takes none, for processes on CPUs.
        hours: The longest that it may take, where a queue must know.
        queue: Slurm's partition; "" takes the cluster's usual one.
        image: Container with Planish in it, for Kubernetes.
        runtime: Kubeflow's ClusterTrainingRuntime.
        bucket: Where checkpoints of a spot machine outlive it ("s3://my-bucket"): mounted as `runs/`.
        spot: Take machines that may be taken away, in a cloud.
    """

    command: tuple[str, ...]
    per_node: int = 8
    name: str = "planish"
    restarts: int = 3
    accelerator: str = "H100"
    hours: float = 24.0
    queue: str = ""
    image: str = ""
    runtime: str = "torch-distributed"
    bucket: str = ""
    spot: bool = True

    def __post_init__(self) -> None:
        if not self.command or self.command[0] != "train":
            raise OptionError("a job is a training", "command", "planish launch PLAN.toml --on slurm -- train MODEL")
        if any(word == "--plan" or word.startswith("--plan=") for word in self.command):
            raise OptionError("the plan is said twice", "command", "leave --plan out after --")
        if self.per_node < 1 or self.restarts < 0:
            raise OptionError(
                f"{self.per_node} devices and {self.restarts} restarts are no numbers of such", "per_node"
            )
        if not self.hours > 0:
            raise OptionError(f"a job takes longer than {self.hours:g} hours", "hours", "hours=24")
        if len(self.name) > 50 or not _NAME.fullmatch(self.name):
            what = f"{self.name!r} is no name for a job"
            raise OptionError(what, "name", "up to 50 small letters, digits and dashes, a letter first")

    def shape(self, plan: Plan) -> tuple[int, int]:
        """Machines, and processes on each.

        Raises:
            OptionError: The plan's devices do not fill machines.
        """
        if plan.devices <= self.per_node:
            return 1, plan.devices
        if plan.devices % self.per_node:
            what = f"a plan for {plan.devices} devices does not fill machines of {self.per_node}"
            fits = max(n for n in range(1, self.per_node + 1) if plan.devices % n == 0)
            raise OptionError(what, "per_node", f"--per-node {fits}, or another plan")
        return plan.devices // self.per_node, self.per_node

    def planish(self, plan: str = PLAN) -> list[str]:
        """The command line of a worker."""
        return ["planish", *self.command, "--plan", plan]


def torchrun(job: Job, plan: Plan, endpoint: str, identity: str) -> str:
    """A shell command that starts a machine's workers, which find the other machines at an endpoint.

    Args:
        job: The job.
        plan: Says how many.
        endpoint: `host:port` as the shell says it, quoted.
        identity: A name of the run, likewise.
    """
    nodes, each = job.shape(plan)
    options = [f"--nnodes={nodes}", f"--nproc-per-node={each}", f"--max-restarts={job.restarts}"]
    options += ["--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", f"--rdzv-id={identity}"]
    return lines(["torchrun", *options, "--no-python", shlex.join(job.planish())])


def lines(words: Sequence[str], indent: str = "  ") -> str:
    """A command with one word a line."""
    return f" \\\n{indent}".join(words)
