"""`planish launch`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from planish.cli.console import console, suggest

START = {
    "torchrun": "bash {}",
    "slurm": "sbatch {}",
    "k8s": "kubectl apply -f {}",
    "sky": "sky jobs launch {}",
}


def launch(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="As planish plan writes it.")],
    command: Annotated[list[str], typer.Argument(metavar="-- train ARGS", help="What to run, as after planish.")],
    on: Annotated[
        str, typer.Option("--on", metavar="ENGINE", help="local runs it here; torchrun, slurm, k8s, sky.")
    ] = "torchrun",
    per_node: Annotated[int, typer.Option(min=1, help="Devices of a machine.")] = 8,
    name: Annotated[str, typer.Option(help="Of the job.")] = "planish",
    restarts: Annotated[int, typer.Option(min=0, help="How often workers that die are started again.")] = 3,
    accelerator: Annotated[str, typer.Option(help='Kind of the devices; "" for CPUs.')] = "H100",
    hours: Annotated[float, typer.Option(help="The longest that it may take.")] = 24.0,
    queue: Annotated[str, typer.Option(help="Slurm's partition [default: the cluster's].")] = "",
    image: Annotated[str, typer.Option(help="Container with Planish in it, for k8s.")] = "",
    runtime: Annotated[str, typer.Option(help="Kubeflow's ClusterTrainingRuntime.")] = "torch-distributed",
    bucket: Annotated[str, typer.Option(metavar="URL", help="Where checkpoints outlive a spot machine.")] = "",
    spot: Annotated[bool, typer.Option("--spot/--on-demand", help="Of sky: machines that may be taken away.")] = True,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")] = Path("job"),
) -> None:
    """Write the files of a training job: for torchrun, Slurm, Kubernetes or SkyPilot; or run it here.

    \b
    planish launch plan.toml --on local -- train gpt.py:make
    planish launch plan.toml --on slurm --per-node 8 -- train gpt.py:make
    planish launch plan.toml --on k8s --image registry/planish:0.1 -- train gpt.py:make
    planish launch plan.toml --on sky --bucket s3://checkpoints -- train gpt.py:make
    """
    console.print("reading the plan", style="dim")
    from planish.launch import Job, write
    from planish.training.parallel import Plan
    from planish.training.parallel.local import run_command

    job = Job(tuple(command), per_node, name, restarts, accelerator, hours, queue, image, runtime, bucket, spot)
    if on == "local":
        words = [sys.executable, "-m", "planish.cli", *command, "--plan", str(plan)]
        raise typer.Exit(run_command(words, Plan.read(plan).devices, restarts))
    read = Plan.read(plan)
    nodes, each = job.shape(read)
    written = write(on, read, job, out)
    console.print(f"[bold]{read}[/]: {nodes} machine{'s' if nodes > 1 else ''} × {each} processes")
    for path in written:
        console.print(str(path), whole=True, markup=False)
    suggest(START[on].format(written[-1]) if on in START else f"the files are in {out}")
