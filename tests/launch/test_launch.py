"""Job files against golden ones, and against what their readers say: bash, Kubeflow's own models, SkyPilot itself."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from planish.errors import OptionError, UnknownName
from planish.launch import Job, engines, files, write
from planish.training.parallel import Plan
from tests.support import require, require_tool

GOLDEN = Path(__file__).parent / "golden"
PLAN = Plan(fsdp=8, tp=2, precision="bf16")
JOB = Job(
    ("train", "gpt.py:make", "--data", "my data.py:rows"),
    name="gpt-small",
    queue="gpu",
    image="registry.example/planish:0.1",
    bucket="s3://checkpoints",
)
# https://slurm.schedmd.com/sbatch.html
SBATCH = {
    "job-name", "nodes", "ntasks-per-node", "gpus-per-node", "exclusive", "cpus-per-task", "time", "requeue",
    "open-mode", "output", "partition",
}  # fmt: skip


@pytest.mark.parametrize("on", sorted(engines))
def test_files_are_the_golden_ones(on: str) -> None:
    if on in ("k8s", "sky"):
        require("yaml")
    for name, text in files(on, PLAN, JOB).items():
        kept = GOLDEN / name
        if os.environ.get("PLANISH_GOLDEN"):
            kept.write_text(text)
        assert text == kept.read_text(), f"PLANISH_GOLDEN=1 pytest {__file__} writes them again, if the change is meant"


@pytest.mark.parametrize(("on", "name"), [("torchrun", "torchrun.sh"), ("slurm", "job.sbatch")])
@pytest.mark.parametrize("plan", [PLAN, Plan(fsdp=4), Plan()])
def test_bash_reads_the_scripts(on: str, name: str, plan: Plan, tmp_path: Path) -> None:
    bash = require_tool("bash")
    write(on, plan, JOB, tmp_path)
    subprocess.run([bash, "-n", str(tmp_path / name)], check=True)


def ran(tmp_path: Path, on: str, name: str, tools: dict[str, str], **environment: str) -> list[list[str]]:
    """The words of each command that a script calls, of programs that only say what they were given."""
    bash = require_tool("bash")
    write(on, PLAN, JOB, tmp_path)
    for tool, body in tools.items():
        (tmp_path / tool).write_text(f"#!{bash}\n{body}\n")
        (tmp_path / tool).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, str(tmp_path / name)], env={**environment, "PATH": path}, capture_output=True, text=True, check=True
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


SAYS = 'printf "%s\\t" "$(basename "$0")" "$@"; echo'


def test_torchrun_gets_every_word_whole(tmp_path: Path) -> None:
    ((_, *words, _),) = ran(tmp_path, "torchrun", "torchrun.sh", {"torchrun": SAYS}, HEAD="node-0")
    assert words[words.index("--no-python") + 1 :] == [
        "planish", "train", "gpt.py:make", "--data", "my data.py:rows", "--plan", "plan.toml",
    ]  # fmt: skip
    assert "--rdzv-endpoint=node-0:29400" in words
    assert "--nnodes=2" in words


def test_slurm_starts_torchrun_on_the_first_hosts_name(tmp_path: Path) -> None:
    tools = {"srun": 'shift; exec "$@"', "torchrun": SAYS, "scontrol": "echo node-7; echo node-8"}
    given = {"SLURM_JOB_NODELIST": "node-[7-8]", "SLURM_JOB_ID": "41", "SLURM_SUBMIT_DIR": str(tmp_path)}
    ((_, *words, _),) = ran(tmp_path, "slurm", "job.sbatch", tools, **given)
    assert "--rdzv-endpoint=node-7:29400" in words
    assert "--rdzv-id=41" in words
    assert "my data.py:rows" in words


def test_torchrun_itself_takes_its_options(tmp_path: Path) -> None:
    from torch.distributed.run import get_args_parser

    ((_, *words, _),) = ran(tmp_path, "torchrun", "torchrun.sh", {"torchrun": SAYS}, HEAD="node-0")
    read = get_args_parser().parse_args(words)
    assert (read.nnodes, read.nproc_per_node, read.max_restarts, read.no_python) == ("2", "8", 3, True)
    assert read.training_script == "planish"


def test_slurm_knows_its_options() -> None:
    for plan in (PLAN, Plan(fsdp=4)):
        for accelerator in ("H100", ""):
            job = Job(("train", "m"), accelerator=accelerator, queue="q")
            asked = re.findall(r"^#SBATCH --([a-z-]+)", files("slurm", plan, job)["job.sbatch"], re.MULTILINE)
            assert set(asked) <= SBATCH
            assert len(asked) == len(set(asked)) >= 8


def test_kubeflows_own_models_take_the_train_job() -> None:
    api, yaml = require("kubeflow_trainer_api.models"), require("yaml")
    content = yaml.safe_load(files("k8s", PLAN, JOB)["trainjob.yaml"])
    read: Any = api.TrainerV1alpha1TrainJob.from_dict(content)
    assert read.to_dict() == content  # nothing was passed over
    assert (read.spec.trainer.num_nodes, read.spec.trainer.num_proc_per_node) == (2, 8)


def test_skypilot_takes_the_task(tmp_path: Path) -> None:
    if not os.environ.get("PLANISH_SKY"):  # pulls in half a cloud: named by whoever has it
        pytest.skip("PLANISH_SKY=1 where skypilot is installed")
    sky: Any = require("sky")
    write("sky", PLAN, Job(JOB.command, spot=False), tmp_path)
    task = sky.Task.from_yaml(str(tmp_path / "sky.yaml"))
    assert task.num_nodes == 2
    (resources,) = task.resources
    assert resources.accelerators == {"H100": 8}
    assert resources.job_recovery["strategy"] == "EAGER_NEXT_REGION"


def test_the_plan_travels_with_it() -> None:
    yaml = require("yaml")
    sky = yaml.safe_load(files("sky", PLAN, JOB)["sky.yaml"])
    (kube,) = yaml.safe_load_all(files("k8s", PLAN, JOB)["trainjob.yaml"])
    carried = {each["name"]: each["value"] for each in kube["spec"]["trainer"]["env"]}
    assert sky["envs"]["PLANISH_PLAN"] == carried["PLANISH_PLAN"] == files("slurm", PLAN, JOB)["plan.toml"]


def test_machines_are_filled() -> None:
    assert Job(("train", "m")).shape(Plan(fsdp=4)) == (1, 4)
    assert Job(("train", "m"), per_node=4).shape(Plan(fsdp=16)) == (4, 4)
    with pytest.raises(OptionError, match="12 devices does not fill machines of 8") as told:
        Job(("train", "m")).shape(Plan(fsdp=12))
    assert "--per-node 6" in told.value.hint


@pytest.mark.parametrize(
    ("on", "job", "what"),
    [
        ("k8s", {}, "needs an image"),
        ("sky", {}, "takes its disk with it"),
        ("slurm", {"command": ("compress", "m")}, "a job is a training"),
        ("slurm", {"command": ()}, "a job is a training"),
        ("slurm", {"command": ("train", "m", "--plan", "p.toml")}, "the plan is said twice"),
        ("slurm", {"name": "My Job"}, "no name for a job"),
        ("slurm", {"hours": 0.0}, "takes longer than 0 hours"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    on: str, job: dict[str, Any], what: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=what):
        write(on, PLAN, Job(**{"command": ("train", "m"), **job}), tmp_path / "job")
    assert not (tmp_path / "job").exists()


def test_an_unknown_engine() -> None:
    with pytest.raises(UnknownName, match="unknown launcher 'slrum'"):
        files("slrum", PLAN, JOB)
