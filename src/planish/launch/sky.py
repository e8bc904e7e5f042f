"""A task of SkyPilot: a managed job, started again elsewhere when its spot machines are taken away."""

from __future__ import annotations

from typing import Any

import tomli_w

from planish.errors import OptionError
from planish.launch.job import PLAN, PORT, STORE, Job, torchrun
from planish.launch.kubernetes import VARIABLE
from planish.launch.yaml import dump
from planish.training.parallel import Plan


def task(plan: Plan, job: Job) -> dict[str, str]:
    """`sky.yaml`.

    Raises:
        OptionError: Spot machines without a bucket: their checkpoints would go with them.
    """
    if job.spot and not job.bucket:
        what = "a spot machine takes its disk with it when it is taken away, and the checkpoints on it"
        raise OptionError(what, "bucket", "--bucket s3://NAME, or --on-demand")
    nodes, each = job.shape(plan)
    resources: dict[str, Any] = (
        {"accelerators": f"{job.accelerator}:{each}"} if job.accelerator else {"cpus": f"{each}+"}
    )
    resources |= {
        "use_spot": job.spot,
        "job_recovery": {"strategy": "EAGER_NEXT_REGION", "max_restarts_on_errors": job.restarts},
    }
    run = f"""\
head=$(echo "$SKYPILOT_NODE_IPS" | sed -n 1p)
printf "%s" "${VARIABLE}" > {PLAN}
{torchrun(job, plan, f'"$head:{PORT}"', '"$SKYPILOT_TASK_ID"')}
"""
    content: dict[str, Any] = {
        "name": job.name,
        "workdir": ".",
        "num_nodes": nodes,
        "resources": resources,
        "envs": {STORE: "1", VARIABLE: tomli_w.dumps(plan.to_data())},
    }
    content |= {"file_mounts": {"~/sky_workdir/runs": {"source": job.bucket, "mode": "MOUNT"}}} if job.bucket else {}
    content |= {"setup": "pip install planish\n", "run": run}
    return {"sky.yaml": f"# {job.name}: {plan}\n# Start it with: sky jobs launch sky.yaml\n{dump(content)}"}
