"""A TrainJob of Kubeflow Trainer v2, whose PyTorch runtime says to torchrun, in its environment, who is where."""

from __future__ import annotations

import shlex
from typing import Any

import tomli_w

from planish.errors import OptionError
from planish.launch.job import PLAN, STORE, Job
from planish.launch.yaml import dump
from planish.training.parallel import Plan

VARIABLE = "PLANISH_PLAN"
"""Carries the plan to machines that share no folder with this one."""


def manifest(plan: Plan, job: Job) -> dict[str, str]:
    """`trainjob.yaml`.

    Raises:
        OptionError: No image is named.
    """
    if not job.image:
        raise OptionError("a container needs an image with Planish in it", "image", "--image registry/planish:0.1")
    nodes, each = job.shape(plan)
    command = shlex.join(["torchrun", f"--max-restarts={job.restarts}", "--no-python", *job.planish(f"/tmp/{PLAN}")])
    trainer: dict[str, Any] = {
        "image": job.image,
        "numNodes": nodes,
        "numProcPerNode": each,
        "command": ["bash", "-c", f'printf "%s" "${VARIABLE}" > /tmp/{PLAN}\nexec {command}\n'],
        "env": [
            {"name": STORE, "value": "1"},
            {"name": VARIABLE, "value": tomli_w.dumps(plan.to_data())},
        ],
        "resourcesPerNode": _resources(job, each),
    }
    content = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": job.name, "labels": {"app.kubernetes.io/created-by": "planish"}},
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": job.runtime,
            },
            "trainer": trainer,
            "activeDeadlineSeconds": round(3600 * job.hours),
        },
    }
    return {"trainjob.yaml": f"# {job.name}: {plan}\n# Start it with: kubectl apply -f trainjob.yaml\n{dump(content)}"}


def _resources(job: Job, each: int) -> dict[str, Any]:
    wanted = {"nvidia.com/gpu": each} if job.accelerator else {"cpu": str(each)}
    return {"requests": dict(wanted), "limits": dict(wanted)}
