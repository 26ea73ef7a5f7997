"""Run as a program: `launch.ablate` where the second process has too little memory for more than two runs at once."""

import sys

import jax

from flax_attnat.training import loop
from launch import ablate, cli

run_steps = loop._run_steps


def short_of_memory(trainer, *arguments):
    """Some steps, or the error of a device whose memory is too small."""
    if jax.process_index() == 1 and len(trainer.runs) > 2:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    return run_steps(trainer, *arguments)


if __name__ == "__main__":
    loop._run_steps = short_of_memory
    sys.exit(cli.run(ablate, ablate.main))
