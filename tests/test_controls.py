"""The controls: attention that is even, and attention that stays as it starts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_attnat.allowed import CONTROLS, ConfigError
from flax_attnat.config import Config, ModelConfig, OptimizerConfig, SweepConfig, TrainingConfig
from flax_attnat.data.load import load
from flax_attnat.objective import adapt_model, adapt_optimizer, build_objective
from flax_attnat.perturbation.geometry import masked_softmax
from flax_attnat.training.runs import cohorts
from flax_attnat.training.step import build_train_step, init_state
from flax_attnat.training.trainer import check_fit
from tests.models.small import hparams, initial, random_batch, random_pairs, small, small_pair

KEY = jax.random.key(0)


@pytest.mark.parametrize("pair", [False, True])
def test_uniform_attention_gives_every_real_token_the_same_weight(pair: bool) -> None:
    model = (small_pair if pair else small)("vanilla", "average")[1]
    even, params, batch = adapt_model("uniform", model), initial(model), random_pairs() if pair else random_batch()
    encoded = even.encode(params, even.embed(params, batch), batch)
    weights = masked_softmax(even.score(params, encoded), encoded.mask)
    mask = np.asarray(encoded.mask)
    expected = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert not np.allclose(masked_softmax(model.score(params, encoded), encoded.mask), expected, atol=1e-3)


@pytest.mark.parametrize("technique", CONTROLS)
def test_attention_is_not_trained_and_everything_else_is(technique: str) -> None:
    config, model = small("vanilla", "average")
    optimizer = adapt_optimizer(technique, OptimizerConfig(decay_attention=technique == "frozen", weight_decay=0.1))
    objective = build_objective(dataclasses.replace(config, technique=technique), adapt_model(technique, model))
    step = jax.jit(build_train_step(objective, optimizer))
    state = begin = init_state(initial(model), optimizer)
    for _ in range(3):
        state, sums = step(state, random_batch(), hparams(weight_decay=0.1), KEY)
        assert float(sums.adversarial) == 0 < float(sums.loss)
    jax.tree.map(np.testing.assert_array_equal, state.params["attention"], begin.params["attention"])
    for group in ("embedding", "encoder", "output"):
        moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state.params[group], begin.params[group])
        assert any(jax.tree.leaves(moved)), group


def test_the_encoder_learns_through_frozen_attention() -> None:
    config, model = small("vanilla", "average")
    params, batch = initial(model), random_batch()

    def gradient(technique: str) -> np.ndarray:
        objective = build_objective(dataclasses.replace(config, technique=technique), adapt_model(technique, model))
        return np.asarray(
            jax.grad(lambda p: objective(p, batch, hparams(), KEY, None)[0])(params)["embedding"]["table"]
        )

    np.testing.assert_allclose(gradient("frozen"), gradient("vanilla"), rtol=1e-6)
    assert not np.allclose(gradient("uniform"), gradient("vanilla"), rtol=1e-2)


def test_controls_are_trained_once_per_seed_and_a_pair_without_attention_parameters_is_refused() -> None:
    swept = SweepConfig(techniques=CONTROLS, epsilons=(1.0, 5.0))
    assert [len(cohort.runs) for cohort in cohorts(Config(sweep=swept, seeds=(0, 1)))] == [2, 2]
    scaled = ModelConfig(attention="scaled_dot")
    selected = TrainingConfig(selection="accuracy")
    config = Config(dataset="simulated1", technique="frozen", model=scaled, training=selected)
    dataset = load(config)
    check_fit(dataclasses.replace(config, technique="uniform"), dataset)
    with pytest.raises(ConfigError, match=r"scaled dot product of a pair has none: leave frozen out"):
        check_fit(config, dataset)
