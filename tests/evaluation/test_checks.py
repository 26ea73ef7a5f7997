"""The conditions on figures of robustness, each violated alone, by hand."""

import numpy as np

from flax_attnat.evaluation.checks import checks
from flax_attnat.evaluation.robustness import Attacked

CLEAN, ATTACKED = np.array([True, True, False]), np.array([[True, True, False], [True, False, False]])
SOUND = Attacked(CLEAN, ATTACKED, ATTACKED, ATTACKED, np.stack([CLEAN, CLEAN]), np.ones((2, 3), bool))
CERTIFIED = np.array([[True, False, False], [False, False, False]])


def violated(radii=(0.5, 1.0), certified=CERTIFIED, **changes):
    """Name and counts of the only check that fails."""
    found = checks(radii, SOUND._replace(**changes), certified)
    (failed,) = (check for check in found if not check.held)
    assert len(found) == 5
    return failed.name, failed.detail


def test_sound_figures_meet_every_condition():
    """With certificates and without; radii in any order, the rows with them."""
    for certified in (CERTIFIED, None):
        assert all(check.held for check in checks([0.5, 1.0], SOUND, certified))
    turned = Attacked(CLEAN, *(field[::-1] for field in SOUND[1:]))
    assert all(check.held for check in checks([1.0, 0.5], turned, CERTIFIED[::-1]))


def test_checks_say_which_condition_fails_and_how_often():
    """Figures of three texts at two radii, changed one at a time."""
    none, every = np.zeros((2, 3), bool), np.ones((2, 3), bool)
    assert violated(fewer=none) == ("more steps are never weaker", "not so at 2 of 2 radii")
    assert violated(radii=(1.0, 0.5)) == ("a larger radius is never safer", "not so at 1 of 2 radii")
    # One text right under noise at each radius, and two, then one, under the attack.
    noise = ("random noise is weaker than the attack", "not so at 1 of 2 radii")
    assert violated(noise=np.array([[True, False, False]] * 2)) == noise
    name, detail = violated(reverified=every ^ (np.arange(6).reshape(2, 3) == 4))
    assert name == "attacks keep to the ball, and a forward pass sees what they saw" and detail == "not so for 1 of 6"
    proof = "certified <= attacked <= clean"
    assert violated(certified=every) == (proof, "3 certified but broken, 0 wrong only without attack, of 6")
    fewer_clean = violated(clean=np.array([True, False, False]), attacked=ATTACKED | (np.arange(3) == 1)[None, :])
    assert fewer_clean == (proof, "0 certified but broken, 2 wrong only without attack, of 6")
