"""How sure a figure is, and the difference of two: intervals, paired comparisons, many p values. NumPy, float64.

Axes: N test examples, M measures, S seeds. The bootstrap redraws examples (which texts were tested), the t test asks
what another seed would give: the two answer different questions.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

# Draws at once; more cost memory and save nothing.
CELLS = 1 << 20

# Differences of means below this are rounding: the figures of two techniques are equal.
EQUAL = 1e-12
# Of figures that were float32 once, as shares are: differences over seeds that differ by less are equal.
ROUNDING = 2**-22


class Comparison(NamedTuple):
    """The difference of a figure between two techniques on the same test examples; NaN where undefined.

    Attributes:
      difference: of a over b.
      low: lower end of its bootstrap interval.
      high: upper end.
      p_value: two-sided.
      n: examples compared.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int


class SeedComparison(NamedTuple):
    """The difference of a figure between two techniques trained from the same seeds; NaN where undefined.

    Attributes:
      difference: mean of a over b.
      effect: Cohen's d_z, the mean of the differences over their standard deviation.
      p_value: two-sided, of the paired t test with n - 1 degrees of freedom.
      n: pairs in which both are defined.
    """

    difference: float
    effect: float
    p_value: float
    n: int


def bootstrap_means(values: np.ndarray, *, resamples: int = 1_000, seed: int = 0) -> np.ndarray:
    """Means of M measures over the same redrawn examples; values that are not finite are left out of theirs.

    Args:
      values: `[M, N]`.
      resamples: bootstrap samples.
      seed: of the draws.

    Returns:
      `[M, resamples]`; NaN where a sample holds no value.
    """
    values = np.asarray(values, np.float64)
    defined = np.isfinite(values)
    sums, counts = _resampled((np.where(defined, values, 0).T, defined.T), resamples, seed)
    return _ratio(sums, counts, math.nan).T


def paired_bootstrap(
    labels: np.ndarray,
    predicted_a: np.ndarray,
    predicted_b: np.ndarray,
    *,
    figure: Literal["f1", "accuracy"] = "f1",
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """How a figure differs between two techniques on the same test examples, each averaged over its seeds.

    Every sample of examples is the same for all seeds and both techniques. `p = 2 min(share of differences <= 0, share
    >= 0)`, each share as `(count + 1) / (resamples + 1)`, and at most 1.

    Args:
      labels: `[N]` classes.
      predicted_a: `[S, N]` classes that each seed's run predicts.
      predicted_b: `[S', N]`, of the other technique.
      figure: "f1" of class 1 (0 where the class is neither there nor predicted), or "accuracy".
      resamples: bootstrap samples.
      seed: of the draws.
      level: probability that the interval covers.

    Returns:
      `Comparison`, NaN without examples or runs.

    Source: Efron & Tibshirani 1993; Koehn 2004; Berg-Kirkpatrick et al. 2012.

    >>> import numpy as np
    >>> labels = np.array([1, 0] * 20)
    >>> worse = np.where(np.arange(40) < 10, 1 - labels, labels)[None, :]
    >>> found = paired_bootstrap(labels, labels[None, :], worse, figure="accuracy")
    >>> print(f"{found.difference:.2f} ({found.low:.2f} to {found.high:.2f}), p = {found.p_value:.4f}")
    0.25 (0.12 to 0.40), p = 0.0002
    """
    labels, runs = np.asarray(labels), np.concatenate([predicted_a, predicted_b])
    n, first = len(labels), len(predicted_a)
    if not (n and first and len(predicted_b)):
        return Comparison(math.nan, math.nan, math.nan, math.nan, n)
    if figure == "f1":
        said, real = runs.T == 1, (labels == 1)[:, None]
        part, whole = 2.0 * (said & real), 1.0 * said + real
    else:
        part, whole = 1.0 * (labels[:, None] == runs.T), np.ones((n, len(runs)))

    def difference(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Mean figure of a over that of b, `[...]`, from sums `[..., S + S']`."""
        figures = _ratio(part, whole, 0)
        return figures[..., :first].mean(axis=-1) - figures[..., first:].mean(axis=-1)

    observed = difference(part.sum(axis=0), whole.sum(axis=0))
    return _compare(observed, difference(*_resampled((part, whole), resamples, seed)), n, level)


def paired_bootstrap_mean(
    a: np.ndarray, b: np.ndarray, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Comparison:
    """How the mean of a per-example measure differs between two techniques, over the examples where both are finite.

    Args:
      a: `[N]`, such as each text's correlation of attention with importance, averaged over seeds.
      b: `[N]`, of the other technique.
      resamples: bootstrap samples.
      seed: of the draws.
      level: probability that the interval covers.

    Returns:
      `Comparison` as of `paired_bootstrap`, n being the examples in which both are finite; NaN without one, and
      without interval and p value for one alone.

    Source: as for `paired_bootstrap`.
    """
    between = _finite_differences(a, b)
    n = len(between)
    if n < 2:
        return Comparison(float(between[0]) if n else math.nan, math.nan, math.nan, math.nan, n)
    (sums,) = _resampled((between[:, None],), resamples, seed)
    return _compare(between.mean(), sums[:, 0] / n, n, level)


def paired_seeds(a: np.ndarray, b: np.ndarray) -> SeedComparison:
    """How a figure differs between two techniques trained from the same seeds: the paired t test.

    Args:
      a: `[S]` one figure a seed.
      b: `[S]`, of the other technique; pairs in which either is not finite are left out.

    Returns:
      `SeedComparison`; effect and p value are NaN for fewer than two pairs, and where all differences are equal but for
      the rounding of float32.

    Source: Student 1908; Cohen 1988, section 2.3.5 (d_z).

    >>> import numpy as np
    >>> found = paired_seeds(np.array([0.82, 0.84, 0.81]), np.array([0.80, 0.79, 0.80]))
    >>> print(f"{found.difference:.3f}, d_z = {found.effect:.2f}, p = {found.p_value:.3f}, n = {found.n}")
    0.027, d_z = 1.28, p = 0.157, n = 3
    """
    between = _finite_differences(a, b)
    n = len(between)
    mean = float(between.mean()) if n else math.nan
    spread = float(between.std(ddof=1)) if n > 1 else 0.0
    figures = np.abs(np.stack([a, b]).astype(np.float64))
    if spread <= ROUNDING * np.max(figures, initial=0.0, where=np.isfinite(figures)):
        return SeedComparison(mean, math.nan, math.nan, n)
    effect = mean / spread
    return SeedComparison(mean, effect, _student_two_sided(effect * math.sqrt(n), n - 1), n)


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values `[M]` adjusted for being M: below alpha with at most that chance of one false finding among them.

    `max_(j <= i) min(1, (M - j + 1) p_(j))` of the i-th smallest; NaN is left out, does not count, and stays.

    Source: Holm 1979.

    >>> import numpy as np
    >>> holm(np.array([0.01, 0.04, np.nan, 0.03]))
    array([0.03, 0.06,  nan, 0.06])
    """
    adjusted = np.array(p_values, np.float64)
    places = np.argsort(adjusted)[: np.sum(~np.isnan(adjusted))]
    steps = (len(places) - np.arange(len(places))) * adjusted[places]
    adjusted[places] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def summary(values: np.ndarray, *, resamples: int = 1_000, seed: int = 0, level: float = 0.95) -> dict[str, Any]:
    """Mean, standard deviation (over n - 1), interval of the mean and counts of values `[N]`; see `summaries`."""
    return summaries({"": values}, resamples=resamples, seed=seed, level=level)[""]


def summaries(
    rows: Mapping[str, np.ndarray], *, resamples: int = 1_000, seed: int = 0, level: float = 0.95
) -> dict[str, dict[str, Any]]:
    """Summaries of several measures of the same examples, which are redrawn once for all, for a result line.

    Args:
      rows: `[N]` of each measure, one N for all; values that are not finite are left out of theirs.
      resamples: bootstrap samples.
      seed: of the draws; measures of the same N and seed are redrawn alike.
      level: probability that the percentile interval of the mean covers.

    Returns:
      For each measure "mean", "sd", "low", "high", "n" and "undefined": n finite values, and how many are not; None for
      an undefined figure.

    Source: Efron & Tibshirani 1993, chapter 13.

    >>> import numpy as np
    >>> summaries({"correlation": np.array([1.0, np.nan])})
    {'correlation': {'mean': 1.0, 'sd': None, 'low': 1.0, 'high': 1.0, 'n': 1, 'undefined': 1}}
    """
    if not rows:
        return {}
    values_MxN = np.stack([np.asarray(values, np.float64) for values in rows.values()])
    samples = bootstrap_means(values_MxN, resamples=resamples, seed=seed)
    return {name: _described(x, means, level) for name, x, means in zip(rows, values_MxN, samples, strict=True)}


def mean_of(values: np.ndarray) -> float | None:
    """Mean of the finite values among `[...]`; None without one."""
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def _described(values: np.ndarray, samples: np.ndarray, level: float) -> dict[str, Any]:
    """The summary of values `[N]` whose resampled means are `[resamples]`."""
    finite = values[np.isfinite(values)]
    sd = float(finite.std(ddof=1)) if len(finite) > 1 else None
    low, high = (None if math.isnan(end) else end for end in _interval(samples, level))
    counts = {"n": len(finite), "undefined": len(values) - len(finite)}
    return {"mean": mean_of(finite), "sd": sd, "low": low, "high": high} | counts


def _resampled(columns: tuple[np.ndarray, ...], resamples: int, seed: int) -> list[np.ndarray]:
    """Sums `[resamples, K]` of each array `[N, K]` over N rows drawn with replacement, the same rows for all."""
    n, widths = len(columns[0]), [part.shape[1] for part in columns]
    table = np.concatenate(columns, axis=1, dtype=np.float64)
    sums, rng = np.zeros((resamples, table.shape[1])), np.random.default_rng(seed)
    rows = max(1, CELLS // max(n, 1))
    for start in range(0, resamples if n else 0, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        sums[start : start + size] = (
            np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float) @ table
        )
    return np.split(sums, np.cumsum(widths)[:-1], axis=1)


def _ratio(part: np.ndarray, whole: np.ndarray, undefined: float) -> np.ndarray:
    """`part / whole`, both `[...]`; a given value where `whole` is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), undefined, np.float64), where=whole > 0)


def _interval(samples: np.ndarray, level: float) -> tuple[float, float]:
    """The middle `level` of samples `[resamples]` but for NaN; (NaN, NaN) if all are."""
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return math.nan, math.nan
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _compare(observed: np.ndarray, samples: np.ndarray, n: int, level: float) -> Comparison:
    """`Comparison` of a difference and its bootstrap samples `[resamples]`."""
    fewest = min(np.sum(samples <= EQUAL), np.sum(samples >= -EQUAL))
    p_value = min(1.0, 2 * (float(fewest) + 1) / (len(samples) + 1))
    return Comparison(float(observed), *_interval(samples, level), p_value, n)


def _finite_differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`a - b` where both `[N]` are finite."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    both = np.isfinite(a) & np.isfinite(b)
    return a[both] - b[both]


def _student_two_sided(t: float, freedom: int) -> float:
    """P(|T| >= |t|) of Student's law, exact to 1e-15, by its finite series (Abramowitz & Stegun 1972, 26.7.3-4)."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    odd, total = freedom % 2, 0.0
    term = math.cos(angle) if odd else 1.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= k / (k + 1) * math.cos(angle) ** 2
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return min(1.0, max(0.0, 1 - inside))
