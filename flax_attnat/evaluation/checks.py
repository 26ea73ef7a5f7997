"""What must hold of figures of robustness if they measure the model rather than weak attacks. NumPy.

Axes: N radii, B texts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flax_attnat.evaluation.robustness import Attacked


class Check(NamedTuple):
    """One condition that a sound evaluation of robustness meets.

    Attributes:
      name: the condition.
      held: whether it is met.
      detail: the counts it was decided by.
    """

    name: str
    held: bool
    detail: str


def checks(radii: Sequence[float] | np.ndarray, found: Attacked, certified: np.ndarray | None) -> list[Check]:
    """Every condition on one run's figures, met or not.

    Steps, radii and noise are compared by the accuracy under the attack at each radius alone; what is certified,
    attacked and clean, text by text.

    Args:
      radii: `[N]`, in any order.
      found: of a whole split, B its texts.
      certified: `[N, B]` bool; None: not certified, which is checked as if nothing were.

    Returns:
      The conditions, always the same five in the same order.

    Source: Carlini et al. 2019, sections 3-5.

    >>> import numpy as np
    >>> yes, no = np.array([[True]]), np.array([[False]])
    >>> broken = Attacked(clean=yes[0], attacked=no, alone=no, fewer=no, noise=yes, reverified=yes)
    >>> [check.name for check in checks([0.5], broken, certified=yes) if not check.held]
    ['certified <= attacked <= clean']
    """
    found = Attacked(*(np.asarray(x) for x in found))
    alone, fewer, noise = (np.sum(x, axis=-1) for x in (found.alone, found.fewer, found.noise))
    ranked = alone[np.argsort(np.asarray(radii, np.float64), kind="stable")]
    of = np.size(found.alone)
    unseen = np.sum(~found.reverified)
    broken = 0 if certified is None else np.sum(certified & ~found.attacked)
    revived = np.sum(found.attacked & ~found.clean[None, :])
    proof = f"{broken} certified but broken, {revived} wrong only without attack, of {of}"
    return [
        _at_radii("more steps are never weaker", alone <= fewer),
        _at_radii("a larger radius is never safer", np.diff(ranked, prepend=ranked[:1]) <= 0),
        _at_radii("random noise is weaker than the attack", noise >= alone),
        Check(
            "attacks keep to the ball, and a forward pass sees what they saw",
            bool(unseen == 0),
            f"not so for {unseen} of {of}",
        ),
        Check("certified <= attacked <= clean", bool(broken + revived == 0), proof),
    ]


def _at_radii(name: str, fine: np.ndarray) -> Check:
    """A comparison made once a radius, `[N]` bool."""
    return Check(name, bool(fine.all()), f"not so at {np.sum(~fine)} of {len(fine)} radii")
