"""Starts several processes of one training on this machine, as a cluster would on many.

    python -m launch.local --processes=2 -- python -m launch.ablate --config=configs/ablation_planted.py --workdir=DIR

Flags:
  --processes=N    how many
  --devices=N      CPU devices of each process (default 1); where there are accelerators, share them by environment
                   variables such as CUDA_VISIBLE_DEVICES
  -- COMMAND       an entry point that takes --coordinator, --num_processes and --process_id, which are added

Each process's errors are shown with its number; the first one's output is shown as it is. SIGTERM and SIGINT are passed
on. When a process fails, the others have a while to notice and stop, then they are killed.

Exit codes: that of the first process that failed, else 0; 2 the command cannot be used.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

from flax_attnat.training.cluster import HEARTBEAT_SECONDS
from launch import cli

FLAGS = {"processes": "how many", "devices": "CPU devices of each"}
# What the others get, beyond the heartbeat, to notice that a process has failed, and to stop.
GRACE_SECONDS = 30


def main(argv: Sequence[str]) -> int:
    """Starts the processes, waits for them, and returns the exit code."""
    if "--" not in argv:
        raise cli.UsageError("the command is missing: python -m launch.local --processes=N -- COMMAND. See --help.")
    place = list(argv).index("--")
    command = list(argv[place + 1 :])
    values = cli.flag_values(argv[:place], FLAGS, config=False)
    processes, devices = (_count(values, name, default) for name, default in (("processes", None), ("devices", "1")))
    if not command:
        raise cli.UsageError("the command after -- is missing. See --help.")
    started = start(command, processes, devices)
    children = [child for child, _ in started]

    def pass_on(number: int, _: object) -> None:
        """A signal to all."""
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return wait(children)
    finally:
        for _, relay in started:
            relay.join(timeout=5)
        for number, handler in before.items():
            signal.signal(number, handler)


def start(command: Sequence[str], processes: int, devices: int) -> list[tuple[subprocess.Popen, threading.Thread]]:
    """The processes of a command, and what relays their errors; the first one owns standard output."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)}
    children = []
    for number in range(processes):
        arguments = [f"--coordinator={address}", f"--num_processes={processes}", f"--process_id={number}"]
        try:
            child = subprocess.Popen(
                [*command, *arguments],
                env=environment,
                stdout=None if number == 0 else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # else a terminal would send them what is passed on to them too
            )
        except OSError as error:
            raise cli.UsageError(f"{command[0]} cannot be started ({error.strerror}).") from error
        assert child.stderr is not None
        relay = threading.Thread(target=_relay, args=(number, child.stderr), daemon=True)
        relay.start()
        children.append((child, relay))
    return children


def wait(children: Sequence[subprocess.Popen]) -> int:
    """Waits for all; once one has failed, for so long as the others may take to notice."""
    failed: int | None = None
    deadline = float("inf")
    while any(child.poll() is None for child in children):
        time.sleep(0.1)
        for number, child in enumerate(children):
            code = child.poll()
            if code and failed is None:
                failed = code if code > 0 else 128 - code
                deadline = time.monotonic() + HEARTBEAT_SECONDS + GRACE_SECONDS
                print(f"process {number} has ended with exit code {failed}.", file=sys.stderr)
        if time.monotonic() > deadline:
            for child in children:
                child.kill()
    codes = [child.returncode for child in children if child.returncode]
    return failed or (abs(codes[0]) if codes else 0)


def _count(values: object, name: str, default: str | None) -> int:
    """A flag that is a positive number."""
    text = getattr(values, name) or default
    if text is None or not text.isdecimal() or int(text) < 1:
        raise cli.UsageError(f"--{name}=N must be a whole number of at least 1; got {text!r}.")
    return int(text)


def _relay(number: int, stream: IO[str]) -> None:
    """Standard error of a process, line by line, with its number."""
    for line in stream:
        print(f"[{number}] {line}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
