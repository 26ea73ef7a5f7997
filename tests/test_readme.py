"""The README's example runs as it is printed, on a model of the reader's own."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text()


def encode(params, tokens):
    return params["table"][tokens]


def score(params, states):
    return states @ params["query"]


def readout(params, context):
    return context @ params["output"]


def cross_entropy(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=-1)[:, 0]


def test_the_functional_example_gives_the_gradient_of_clean_plus_adversarial_loss() -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    rng = np.random.default_rng(0)
    shapes = {"table": (9, 4), "query": (4,), "output": (4, 3)}
    names = {
        "params": {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()},
        "tokens": jnp.asarray(rng.integers(1, 9, (5, 6))),
        "mask": jnp.arange(6)[None, :] < jnp.asarray([[6], [4], [3], [2], [5]]),
        "labels": jnp.asarray(rng.integers(0, 3, 5)),
    } | {f.__name__: f for f in (encode, score, readout, cross_entropy)}
    exec(compile(code, "README.md", "exec"), names)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(names["grads"]))
    np.testing.assert_allclose(names["aux"].delta_norm, np.full(5, 5.0), rtol=1e-5)


def test_every_command_and_file_that_the_readme_names_is_there() -> None:
    root = Path(__file__).parents[1]
    for module in re.findall(r"python -m (\S+)", README):
        assert (root / (module.replace(".", "/") + ".py")).is_file(), module
    for path in re.findall(r"(?:launch|configs)/\w+\.(?:sh|py)", README):
        assert (root / path).is_file(), path
    tree = README.split("```\nflax_attnat/\n")[1].split("```")[0]
    for name in re.findall(r"^  (\w+[/.]\S*)", tree, re.MULTILINE):
        assert (root / "flax_attnat" / name).exists(), name
