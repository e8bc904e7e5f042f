"""A batch script of Slurm: one task a machine, each of which is a torchrun; queued again when a machine fails."""

from __future__ import annotations

from planish.launch.job import PORT, STORE, Job, lines, torchrun
from planish.training.parallel import Plan


def script(plan: Plan, job: Job) -> dict[str, str]:
    """`job.sbatch`."""
    nodes, each = job.shape(plan)
    minutes = round(job.hours * 60)
    options = [f"--job-name={job.name}", f"--nodes={nodes}", "--ntasks-per-node=1"]
    options += [f"--gpus-per-node={each}", "--exclusive"] if job.accelerator else [f"--cpus-per-task={each}"]
    options += [f"--time={minutes // 60:02d}:{minutes % 60:02d}:00", "--requeue", "--open-mode=append"]
    options += ["--output=%x-%j.log"]
    options += [f"--partition={job.queue}"] if job.queue else []
    asked = "\n".join(f"#SBATCH {option}" for option in options)
    command = torchrun(job, plan, f'"$head:{PORT}"', '"$SLURM_JOB_ID"')
    text = f"""\
#!/usr/bin/env bash
# {job.name}: {plan}
# Submit it with: sbatch job.sbatch
{asked}
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
export {STORE}=1
{lines(["srun --kill-on-bad-exit=1", command])}
"""
    return {"job.sbatch": text}
