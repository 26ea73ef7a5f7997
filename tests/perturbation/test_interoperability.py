"""The functions serve a user's model, however it is written; and importing the package is light."""

import functools
import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flax_attnat as fa

B, T, H = 3, 5, 4
rng = np.random.default_rng(0)
STATES = jnp.asarray(rng.normal(size=(B, T, H)), jnp.float32)
MASK = jnp.asarray(np.arange(T) < np.array([[5], [3], [4]]))
LABELS = jnp.asarray([1.0, 0.0, 1.0])
SCORE, READ = (jnp.asarray(rng.normal(size=(H, 1)), jnp.float32) for _ in range(2))


class LinenClassifier(nn.Module):
    """Attention over hidden states `[B, T, H]`, as a Linen user would write it."""

    @nn.compact
    def __call__(self, states, delta):
        scores = nn.Dense(1, use_bias=False, name="score")(states)[..., 0] + delta
        context = jnp.einsum("bt,bth->bh", fa.masked_softmax(scores, MASK), states)
        return nn.Dense(1, use_bias=False, name="read")(context)[..., 0]


class NnxClassifier(nnx.Module):
    """The same, as an NNX user would write it."""

    def __init__(self, rngs):
        self.score = nnx.Linear(H, 1, use_bias=False, rngs=rngs)
        self.read = nnx.Linear(H, 1, use_bias=False, rngs=rngs)

    def __call__(self, states, delta):
        scores = self.score(states)[..., 0] + delta
        return self.read(jnp.einsum("bt,bth->bh", fa.masked_softmax(scores, MASK), states))[..., 0]


def linen():
    model = LinenClassifier()
    params = {"params": {"score": {"kernel": SCORE}, "read": {"kernel": READ}}}
    return params, model.apply


def nnx_closure():
    model = NnxClassifier(nnx.Rngs(0))
    model.score.kernel[...], model.read.kernel[...] = SCORE, READ
    graph, state = nnx.split(model)
    return state, lambda state, states, delta: nnx.merge(graph, state)(states, delta)


def bare():
    def apply(params, states, delta):
        score, read = params
        scores = (states @ score)[..., 0] + delta
        return (jnp.einsum("bt,bth->bh", fa.masked_softmax(scores, MASK), states) @ read)[..., 0]

    return (SCORE, READ), apply


@functools.cache
def train_values(build, technique):
    """Losses `[3, B]` for three epsilons, and the gradients of the mean loss with respect to score and read weights."""

    params, apply = build()

    def losses(params, epsilon):
        def loss_fn(params, delta):
            z = apply(params, STATES, delta)
            return -(LABELS * jax.nn.log_sigmoid(z) + (1 - LABELS) * jax.nn.log_sigmoid(-z))

        like = jnp.zeros((B, T))  # the technique reads shape and dtype alone, but for iAT
        if technique == "attention_iat":
            like = jnp.einsum("bth,ho->bto", STATES, SCORE)[..., 0]
        delta = getattr(fa, technique)(functools.partial(loss_fn, params), like, MASK, epsilon)
        return fa.adversarial_loss(functools.partial(loss_fn, params), delta)[0]

    epsilons = jnp.asarray([0.0, 0.5, 2.0])

    def mean(params):
        values = jax.vmap(functools.partial(losses, params))(epsilons)
        return jnp.mean(values), values

    gradients, values = jax.jit(jax.grad(mean, has_aux=True))(params)
    return values, gradients


@pytest.mark.parametrize("technique", ["attention_at", "attention_iat"])
@pytest.mark.parametrize("build", [linen, nnx_closure], ids=["linen", "nnx"])
def test_linen_nnx_and_bare_functions_agree(build, technique):
    """Losses under jit and vmap over epsilon, and gradients over parameters, equal those of the bare function."""
    values, gradients = train_values(build, technique)
    expected_values, (score, read) = train_values(bare, technique)
    np.testing.assert_allclose(values, expected_values, rtol=1e-6)
    assert np.all(np.diff(expected_values, axis=0) != 0)
    if build is linen:
        gradients = gradients["params"]
        found = gradients["score"]["kernel"], gradients["read"]["kernel"]
    else:
        found = gradients["score"]["kernel"][...], gradients["read"]["kernel"][...]
    np.testing.assert_allclose(found[0], score, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[1], read, rtol=1e-5, atol=1e-7)


def test_importing_the_package_is_light():
    """Data, plotting and checkpoint libraries are for those who train: `import flax_attnat` loads none of them."""
    heavy = ["tensorflow", "tensorflow_datasets", "spacy", "sklearn", "matplotlib", "orbax", "flax", "optax"]
    code = f"import json, sys, flax_attnat; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
