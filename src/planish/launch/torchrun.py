"""A script that each machine of a group runs: torchrun with elastic rendezvous at the first of them."""

from __future__ import annotations

from planish.launch.job import PORT, STORE, Job, torchrun
from planish.training.parallel import Plan


def script(plan: Plan, job: Job) -> dict[str, str]:
    """`torchrun.sh`."""
    nodes, _ = job.shape(plan)
    where = "this machine" if nodes == 1 else f"each of {nodes} machines, HEAD being the name of the first"
    head = "${HEAD:-localhost}" if nodes == 1 else '${HEAD:?"the name of the first machine"}'
    text = f"""\
#!/usr/bin/env bash
# {job.name}: {plan}
# Run it on {where}: {"" if nodes == 1 else "HEAD=node-0 "}bash torchrun.sh
set -euo pipefail
cd "$(dirname "$0")"
export {STORE}=1
exec {torchrun(job, plan, f'"{head}:{PORT}"', job.name)}
"""
    return {"torchrun.sh": text}
