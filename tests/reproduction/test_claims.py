"""Claims are judged by means over seeds, each reading by itself; nothing holds that was not tested, or is not clear."""

import itertools
import math

import numpy as np
import pytest

from flax_attnat.reproduction import claims, courses, settings
from flax_attnat.reproduction.claims import FAILS, HOLDS, OPEN
from flax_attnat.reproduction.differences import Difference
from flax_attnat.reproduction.document import write_document
from tests.reproduction.made import lines_of

ALL = [("vanilla", None), ("attention_rp", None), ("attention_at", None), ("word_at", None), ("word_iat", None)]


def test_what_was_trained_at_one_epsilon_is_not_judged() -> None:
    """A reading that loses on two data sets has not lost yet; nor has one won that others had no choice against."""
    found = judged({"span": 0.7}, ("sst", "imdb"))
    assert claims.verdicts(found, allowed=1)[0].verdict == FAILS
    few = judged({"span": 0.7}, ("sst", "imdb"), least=2)
    verdict = claims.verdicts(few, allowed=1)[0]
    assert (verdict.verdict, verdict.so_far, verdict.counts) == (
        OPEN,
        "best on 0 of 2 data sets, undecided on 2",
        (0, 0, 2),
    )
    assert verdict.reason.startswith("sst: undecided, trained at 1 epsilon; imdb: undecided, trained at 1 epsilon; 10")
    assert all(other.p_holm is None for of in few for other in of.differences)
    names = [f"set{number}" for number in range(10)]
    assert claims.verdicts(judged({"span": 0.85}, names, least=2), allowed=0)[0].verdict == OPEN


def test_the_setting_is_chosen_on_dev_and_epsilon_zero_does_not_compete() -> None:
    lines = [
        *lines_of("sst", "attention_at", None, 1.0, dev=[0.80, 0.82], test=[0.9, 0.9]),
        *lines_of("sst", "attention_at", None, 5.0, dev=[0.83, 0.81], test=[0.1, 0.1]),
        *lines_of("sst", "attention_at", None, 0.0, dev=[0.99, 0.99], test=[0.9, 0.9]),
        *lines_of("sst", "attention_at", None, 2.0, dev=[1.0], test=[0.9]),
    ]
    best = settings.chosen(lines, "sst", "pretrained")
    assert best[("attention_at", None)].epsilon == 5.0, "the larger dev mean among those with the most seeds"


def test_a_tie_goes_to_the_smaller_epsilon() -> None:
    lines = [
        line for e in (5.0, 1.0) for line in lines_of("sst", "attention_at", None, e, dev=[0.8, 0.8], test=[0.8, 0.8])
    ]
    assert settings.chosen(lines, "sst", "pretrained")[("attention_at", None)].epsilon == 1.0


def test_the_setting_is_chosen_by_another_figure_or_as_small_as_is_good_enough() -> None:
    lines = [
        line | {"f1": value}
        for epsilon, auc, value in ((0.5, 0.80, 0.7), (1.0, 0.84, 0.6), (5.0, 0.85, 0.5))
        for line in lines_of("sst", "attention_at", None, epsilon, dev=[auc] * 2, test=[0.9, 0.9])
    ]
    name = ("attention_at", None)
    assert settings.chosen(lines, "sst", "pretrained")[name].epsilon == 5
    assert settings.chosen(lines, "sst", "pretrained", "f1")[name].epsilon == 0.5
    assert settings.chosen(lines, "sst", "pretrained", slack=0.02)[name].epsilon == 1


def judged(readings: dict[str, float], datasets=("sst",), others: float = 0.80, noise: float = 0.01, least: int = 1):
    """Claim 1 judged where every other technique has one mean, and each reading its own over seeds that differ."""
    lines = []
    for dataset in datasets:
        for name, reading in ALL:
            epsilon = None if name == "vanilla" else 1.0
            lines += lines_of(
                dataset, name, reading, epsilon, dev=[0.8] * 3, test=[others + d for d in (0, 0.01, -0.01)]
            )
        lines += lines_of(dataset, "attention_at", None, 0.0, dev=[0.8] * 3, test=[others, others + 0.02, others])
        for reading, value in readings.items():
            test = [value + d for d in (0, -noise, noise)]
            lines += lines_of(dataset, "attention_iat", reading, 1.0, dev=[0.8] * 3, test=test)
    return claims.judge(lines, dict.fromkeys(datasets, "pretrained"), least=least)


def test_each_reading_is_judged_by_itself() -> None:
    """One that is best of few data sets is not yet decided; one that loses on two cannot win nine of ten."""
    found = claims.verdicts(judged({"span": 0.85, "released": 0.75}, ("sst", "imdb")), allowed=1)
    by_reading = {of.reading: of for of in found}
    span = by_reading["span"]
    assert span.verdict == OPEN and span.so_far.startswith("best on 2 of 2 data sets, significantly on")
    released = by_reading["released"]
    assert released.verdict == FAILS
    assert released.so_far == "best on 0 of 2 data sets, above vanilla on 0"
    assert by_reading["sign"].verdict == OPEN and "10 of 10 data sets were not tested" in by_reading["sign"].reason


def test_equal_is_not_better() -> None:
    (one,) = judged({"span": 0.80})
    assert set(one.beaten_by) == {name for name, _ in ALL} | {"epsilon 0"}


def test_equal_but_for_rounding_is_not_better() -> None:
    """The same sum of right texts by other seeds, as float32 shares; the smaller epsilon of such a tie is taken."""
    ours, theirs = (np.float32(right) / np.float32(1500) for right in ([1492, 1496, 1496], [1493, 1493, 1498]))
    assert np.mean(ours, dtype=np.float64) > np.mean(theirs, dtype=np.float64)
    lines = [
        *lines_of("sst", "vanilla", None, None, dev=[0.8] * 3, test=theirs.tolist()),
        *lines_of("sst", "attention_iat", "span", 1.0, dev=theirs.tolist(), test=ours.tolist()),
        *lines_of("sst", "attention_iat", "span", 5.0, dev=ours.tolist(), test=[0.9] * 3),
    ]
    (found,) = claims.judge(lines, {"sst": "pretrained"})
    assert found.setting.epsilon == 1 and found.end == ", 2 tied" and found.beaten_by == ("vanilla",)
    assert settings.chosen(lines, "sst", "pretrained", largest=True)[("attention_iat", "span")].epsilon == 5


def test_what_has_no_choice_of_epsilons_decides_nothing() -> None:
    """A word technique that is far better, but was trained at one epsilon, neither beats a reading nor is corrected."""
    lines = [
        *lines_of("sst", "vanilla", None, None, dev=[0.8] * 3, test=[0.80, 0.81, 0.79]),
        *lines_of("sst", "word_at", None, 1.0, dev=[0.8] * 3, test=[0.95, 0.97, 0.96]),
        *(
            line
            for epsilon in (1.0, 5.0)
            for line in lines_of("sst", "attention_iat", "span", epsilon, dev=[0.8] * 3, test=[0.85, 0.84, 0.83])
        ),
    ]
    (found,) = claims.judge(lines, {"sst": "pretrained"})
    assert found.beaten_by == () and "word_at" in found.lacking
    assert [other.name for other in claims.comparisons([found])] == ["vanilla"]
    assert next(other for other in found.differences if other.name == "word_at").p_holm is None
    assert claims.verdicts([found], allowed=0)[0].verdict == OPEN


def test_a_claim_holds_only_when_all_ten_were_tested() -> None:
    names = [f"set{number}" for number in range(10)]
    assert claims.verdicts(judged({"span": 0.95}, names, noise=0.001), allowed=0)[0].verdict == HOLDS
    assert claims.verdicts(judged({"span": 0.95}, names[:9], noise=0.001), allowed=1)[0].verdict == OPEN


def test_a_claim_does_not_hold_that_is_true_of_the_means_by_chance() -> None:
    """All ten data sets, the best on each, significantly above its controls on none."""
    names = [f"set{number}" for number in range(10)]
    verdict = claims.verdicts(judged({"span": 0.81}, names), allowed=1)[0]
    assert verdict.verdict == FAILS
    assert verdict.so_far == "best on 10 of 10 data sets, significantly on 0, above vanilla on 10"


def test_what_is_significantly_below_another_is_named() -> None:
    """What seeds alone could have put below it is not."""
    clear, unclear = judged({"span": 0.70, "released": 0.70}, noise=0.0), judged({"span": 0.79})
    assert set(clear[0].significantly_below) == {name for name, _ in ALL} | {"epsilon 0"}
    assert "significantly below vanilla" in claims.verdicts(clear, allowed=0)[0].reason
    assert not unclear[0].significantly_below and len(unclear[0].beaten_by) == 6


def test_what_could_not_be_compared_with_everything_is_neither_won_nor_lost() -> None:
    lines = [
        *lines_of("sst", "attention_iat", "span", 1.0, dev=[0.8] * 2, test=[0.8, 0.9]),
        *lines_of("sst", "vanilla", None, None, dev=[0.8] * 2, test=[0.7, 0.75]),
    ]
    verdict = claims.verdicts(claims.judge(lines, {"sst": "pretrained"}, least=1), allowed=0)[0]
    assert verdict.verdict == OPEN and verdict.so_far == "best on 0 of 1 data set, undecided on 1, above vanilla on 1"
    assert verdict.reason == (
        "sst: undecided, without attention_rp, attention_at, word_at, word_iat, epsilon 0;"
        " 10 of 10 data sets were not tested against everything"
    )


def test_means_are_compared_over_the_seeds_that_both_have() -> None:
    """Vanilla's third seed, which iAT lacks, would put it above."""
    lines = [
        *lines_of("sst", "attention_iat", "span", 1.0, dev=[0.8] * 2, test=[0.8, 0.82]),
        *lines_of("sst", "vanilla", None, None, dev=[0.8] * 3, test=[0.7, 0.75, 1.0]),
    ]
    (one,) = claims.judge(lines, {"sst": "pretrained"}, least=1)
    assert one.beaten_by == () and one.differences[0].seeds == 2


def test_the_last_epoch_is_judged_at_the_setting_of_dev() -> None:
    """It overfits: the epsilon stays that of the best epoch."""
    lines = [
        *lines_of("sst", "attention_iat", "span", 1.0, dev=[0.9] * 2, test=[0.8, 0.82]),
        *lines_of("sst", "attention_iat", "span", 5.0, dev=[0.8] * 2, test=[0.9, 0.9]),
        *lines_of("sst", "vanilla", None, None, dev=[0.8] * 2, test=[0.7, 0.75]),
    ]
    overfit = [line | {"f1": 0.1} if line["epoch"] == "last" and line["epsilon"] == 1 else line for line in lines]
    (best,), (last,) = (claims.judge(overfit, {"sst": "pretrained"}, epoch=epoch) for epoch in ("best", "last"))
    assert best.setting == last.setting and best.setting.epsilon == 1
    assert best.beaten_by == () and last.beaten_by == ("vanilla",)


def test_controls_are_compared_over_common_seeds_and_corrected_over_readings_and_data_sets() -> None:
    """Against arithmetic in the open: the difference of means, and Holm's correction of the p values in hand."""
    found = judged({"span": 0.85, "released": 0.70, "sign": 0.9}, ("sst", "imdb"))
    assert [of.name for of in found[0].differences] == [*(name for name, _ in ALL), "epsilon 0"]
    zero = found[0].differences[-1]
    assert zero.difference == pytest.approx(0.85 - (0.80 + 0.82 + 0.80) / 3) and zero.seeds == 3
    raw = np.array([of.differences[-1].p_value for of in found])
    order = np.argsort(raw)
    expected = np.empty_like(raw)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(raw) - rank) * raw[place]))
        expected[place] = largest
    np.testing.assert_allclose([of.differences[-1].p_holm for of in found], expected)


def test_below_any_of_the_others_is_corrected_over_all_of_them() -> None:
    """Holm over every comparison in hand; above a control it need not be, for all controls must agree."""
    found = judged({"span": 0.85, "released": 0.70, "sign": 0.9}, ("sst", "imdb"))
    raw = [other.p_value for of in found for other in of.differences]
    every = [other.p_every for of in found for other in of.differences]
    least = min(raw)
    assert min(every) == pytest.approx(len(raw) * least)
    assert all(q >= p for of in found for p, q in ((other.p_holm, other.p_every) for other in of.differences))
    alone = Difference("vanilla", -1.0, 0.004, 0.03, 3, 0.2)
    assert not alone.significant and not alone.above
    assert alone._replace(p_every=0.04).significant and alone._replace(difference=1.0).above


def test_a_missing_control_is_said_and_no_figure_is_made_up() -> None:
    lines = lines_of("sst", "attention_iat", "span", 1.0, dev=[0.8] * 2, test=[0.8] * 2)
    (one,) = claims.judge(lines, {"sst": "pretrained"})
    assert all(of == (of.name, None, None, None, 0, None, None) for of in one.differences)
    assert set(one.lacking) == {name for name, _ in ALL} | {"epsilon 0"}
    assert claims.verdicts([one], allowed=0)[0].verdict == OPEN


def test_frozen_runs_do_not_count() -> None:
    lines = lines_of("sst", "vanilla", None, None, dev=[0.8], test=[0.8])
    assert not settings.index([line | {"frozen_step": 3} for line in lines])


def test_frozen_runs_are_counted(tmp_path) -> None:
    lines = [
        *lines_of("sst", "vanilla", None, None, dev=[0.8], test=[0.8]),
        *(line | {"frozen_step": 3} for line in lines_of("sst", "word_at", None, 1.0, dev=[0.8], test=[0.8])),
    ]
    write_document(lines, tmp_path, tmp_path / "out.md")
    assert "- 1 runs whose loss or gradient was not finite" in (tmp_path / "out.md").read_text()


def test_the_range_by_chance_is_that_of_drawn_figures() -> None:
    """Four epsilons that are alike and seeds that differ much: the mean of many draws."""
    rng = np.random.default_rng(0)
    draws = 80 + 5 * rng.standard_normal((4000, 1, 3)) + rng.standard_normal((4000, 4, 3))
    spans = np.ptp(draws.mean(axis=2), axis=1)
    found, p_values = np.transpose([courses.range_by_chance(draw) for draw in draws[:400]])
    # A deviation of six degrees of freedom is 0.959 of the true one in the mean.
    assert np.mean(found) / 0.959 == pytest.approx(spans.mean(), rel=0.03)
    assert np.mean(p_values <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.isnan(courses.range_by_chance(draws[0, :, :1])).all()
    assert np.isnan(courses.range_by_chance(np.ones((4, 3)))).all()
    for added in ([[99.9, 99.8], [99.7, 99.6]], [[90.1, 91.3, 92.7], [90.6, 91.8, 93.2]]):
        assert np.isnan(courses.range_by_chance(np.array(added))).all(), "seed and epsilon explain all of it"


@pytest.mark.parametrize(
    ("points", "span", "octaves"),
    [
        ({1.0: 80.0, 2.0: 80.5, 4.0: 80.2, 8.0: 70.0}, 10.5, 2.0),
        ({1.0: 80.5, 2.0: 79.0, 4.0: 80.4}, 1.5, 0.0),  # a valley ends the interval
        ({0.5: 80.0, 16.0: 80.0}, 0.0, 5.0),
    ],
)
def test_the_course_of_a_technique(points, span, octaves) -> None:
    found = courses.course(("word_at", None), points)
    assert found.range == pytest.approx(span) and found.octaves == pytest.approx(octaves)


def curve(name, reading, means, dataset="sst"):
    """Runs of a technique at epsilons 1, 2, 4 and 8, or at the first of them."""
    pairs = zip((1.0, 2.0, 4.0, 8.0), means, strict=False)
    return itertools.chain(*(lines_of(dataset, name, reading, e, dev=[m], test=[m]) for e, m in pairs))


def test_claim_three_compares_the_flattest_word_technique_with_the_steepest_of_attention() -> None:
    words = [*curve("word_at", None, (0.8, 0.7, 0.6, 0.6)), *curve("word_iat", None, (0.8, 0.78, 0.75, 0.75))]
    flat = [
        *curve("attention_at", None, (0.8, 0.8, 0.79, 0.79)),
        *curve("attention_iat", "span", (0.8, 0.81, 0.8, 0.8)),
    ]
    verdict = {of.reading: of for of in courses.sensitivity_verdicts([*words, *flat], {"sst": "pretrained"})}
    assert verdict["span"].verdict == OPEN and verdict["span"].reason.startswith("sst: so; 9 of 10")
    assert verdict["span"].by == ()
    assert verdict["span"].so_far == "true on 1 of 1 data set, significantly on 0", "one seed says nothing of chance"
    assert verdict["released"].reason == "10 of 10 data sets were not tested" and verdict["released"].so_far == ""
    steep = [
        *curve("attention_at", None, (0.8, 0.7, 0.79, 0.79)),
        *curve("attention_iat", "span", (0.8, 0.81, 0.8, 0.8)),
    ]
    found = courses.sensitivity_verdicts([*words, *steep], {"sst": "pretrained"})
    assert found[0].verdict == FAILS and found[0].by == ("attention_at",), "iAT itself depends less"
    assert "sst: not so by the range of attention_at, 10.00, where that of word_iat is 5.00; " in found[0].reason


def test_claim_three_fails_by_the_width_alone() -> None:
    """Word curves that are steep, but near their best for longer."""
    lines = [
        *curve("word_at", None, (0.8, 0.8, 0.8, 0.6)),
        *curve("word_iat", None, (0.8, 0.8, 0.8, 0.6)),
        *curve("attention_at", None, (0.8, 0.79, 0.79, 0.79)),
        *curve("attention_iat", "span", (0.8, 0.79, 0.79, 0.79)),
    ]
    verdict = courses.sensitivity_verdicts(lines, {"sst": "pretrained"})[0]
    assert verdict.verdict == FAILS and verdict.by == ("attention_at", "attention_iat (span)")
    assert "not so by the width of attention_at, 0.0 octaves, where that of word_at is 2.0" in verdict.reason


def test_claim_three_is_judged_over_equal_relative_epsilons_too() -> None:
    """Scores of norm 4 and words of norm 80 (see `lines_of`): 1 to 8 of the former are 20 to 160 of the latter."""
    lines = lines_of("sst", "vanilla", None, None, dev=[0.8], test=[0.8])
    for name, reading in (("attention_at", None), ("attention_iat", "span"), ("word_at", None), ("word_iat", None)):
        words = name.startswith("word")
        epsilons = (20.0, 40.0, 80.0, 160.0, 900.0) if words else (0.1, 1.0, 2.0, 4.0, 8.0)
        means = (0.8, 0.7, 0.6, 0.5, 0.1) if words else (0.1, 0.8, 0.79, 0.8, 0.8)
        for epsilon, mean in zip(epsilons, means, strict=True):
            lines += lines_of("sst", name, reading, epsilon, dev=[mean], test=[mean])
    span = courses.sensitivity_verdicts(lines, {"sst": "pretrained"}, relative=True)[0]
    assert span.true == ("sst",) and span.counts == (1, 0, 0), "what lies outside of the range of both is left out"
    found = {of.name: of for of in courses.judged_courses(lines, {"sst": "pretrained"}, relative=True)["sst"]}
    assert found[("attention_at", None)].epsilons == (1.0, 2.0, 4.0, 8.0)
    assert found[("word_at", None)].epsilons == (20.0, 40.0, 80.0, 160.0)
    assert (found[("attention_at", None)].range, found[("word_at", None)].range) == (
        pytest.approx(1),
        pytest.approx(30),
    )
    equal = courses.sensitivity_verdicts(lines, {"sst": "pretrained"})[0]
    assert equal.counts == (0, 0, 1), "no epsilon is the same number for all"
    alone = [line for line in lines if line["technique"] != "vanilla"]
    unknown = courses.sensitivity_verdicts(alone, {"sst": "pretrained"}, relative=True)[0]
    assert unknown.counts == (0, 0, 1), "the norm of the scores is vanilla's"


def test_what_is_at_its_ceiling_is_named() -> None:
    """Nothing can be above it; a Pearson of 1 is no share."""
    lines = []
    for name, reading in (*ALL, ("attention_iat", "span")):
        for epsilon in (None,) if name == "vanilla" else (1.0, 2.0):
            figures = [1.0, 1.0] if name in ("vanilla", "word_at") else [0.99, 1.0]
            lines += lines_of("babi1", name, reading, epsilon, dev=figures, test=figures, variant="random")
    found = claims.judge(lines, {"babi1": "random"})
    assert claims.at_ceiling(found) == {"babi1": ("vanilla", "word_at")}
    assert claims.at_ceiling(claims.judge(lines, {"babi1": "random"}, "pearson_gradient")) == {}


def test_a_technique_that_was_begun_does_not_shorten_the_curves_of_others() -> None:
    names = [("word_at", None), ("word_iat", None), ("attention_at", None), ("attention_iat", "span")]
    lines = [line for name in names for line in curve(*name, (0.8, 0.7, 0.6, 0.6))]
    begun = [*lines, *curve("attention_iat", "sign", (0.8, 0.7))]
    before, after = (courses.sensitivity_verdicts(of, {"sst": "pretrained"}) for of in (lines, begun))
    assert before[0] == after[0] and before[0].counts == (0, 1, 0)
    sign = {of.reading: of for of in after}["sign"]
    assert sign.counts == (0, 0, 1) and sign.so_far == "true on 0 of 1 data set, undecided on 1"
    assert {of.epsilons for of in courses.courses(begun, "sst", "pretrained")} == {(1.0, 2.0)}, "what all have"
    assert {of.epsilons for of in courses.courses(begun, "sst", "pretrained", names)} == {(1.0, 2.0, 4.0, 8.0)}


@pytest.mark.parametrize(
    ("ours", "words", "noise", "said"),
    [
        ((0.80, 0.801, 0.80, 0.80), (0.8, 0.7, 0.6, 0.5), 0.001, "true on 10 of 10 data sets, significantly on 10"),
        ((0.80, 0.801, 0.80, 0.80), (0.8, 0.7, 0.6, 0.5), 0.2, "true on 10 of 10 data sets, significantly on 0"),
        (
            (0.8, 0.7, 0.6, 0.5),
            (0.80, 0.801, 0.80, 0.80),
            0.001,
            "true on 0 of 10 data sets, significantly not so on 10",
        ),
        (
            (0.8, 0.7, 0.6, 0.5),
            (0.80, 0.801, 0.80, 0.80),
            0.2,
            "true on 0 of 10 data sets",
        ),
        (
            (0.8, 0.79, 0.79, 0.79),
            (0.8, 0.8, 0.8, 0.6),
            0.001,
            "true on 0 of 10 data sets",
        ),
    ],
)
def test_claim_three_is_significant_where_seeds_do_not_explain_the_span(ours, words, noise, said) -> None:
    """It holds only then; a span that is lost by chance, or a loss by the width alone, is not significant."""
    names = [f"set{number}" for number in range(10)]
    rng = np.random.default_rng(0)
    lines = []
    for dataset, (name, reading) in itertools.product(
        names, [("attention_at", None), ("attention_iat", "span"), ("word_at", None), ("word_iat", None)]
    ):
        for epsilon, value in zip((1.0, 2.0, 4.0, 8.0), words if name.startswith("word") else ours, strict=True):
            off = (
                noise * rng.standard_normal(2) if noise < 0.1 else noise * np.array([1, -1]) * (-1) ** int(epsilon == 2)
            )
            values = (value + np.array([off[0], off[1], -off[0] - off[1]])).tolist()
            lines += lines_of(dataset, name, reading, epsilon, dev=[0.8] * 3, test=values)
    verdict = courses.sensitivity_verdicts(lines, dict.fromkeys(names, "pretrained"))[0]
    assert verdict.so_far == said
    assert (verdict.verdict == HOLDS) == said.endswith("10 of 10 data sets, significantly on 10")


def test_the_span_is_of_the_seeds_that_all_epsilons_have() -> None:
    lines = [
        *lines_of("sst", "word_at", None, 1.0, dev=[0.8] * 3, test=[0.80, 0.82, 0.1]),
        *lines_of("sst", "word_at", None, 2.0, dev=[0.8] * 2, test=[0.79, 0.81]),
    ]
    (one,) = courses.courses(lines, "sst", "pretrained")
    assert one.range == pytest.approx(1.0)


def test_what_has_fewer_seeds_does_not_compete_and_is_not_counted() -> None:
    lines = [
        *lines_of("sst", "attention_iat", "span", 1.0, dev=[0.8] * 3, test=[0.8] * 3),
        *lines_of("sst", "attention_iat", "span", 2.0, dev=[0.9], test=[0.9]),
    ]
    (one,) = claims.judge(lines, {"sst": "pretrained"})
    assert one.epsilons == 1 and not one.enough


def test_claim_three_is_not_judged_by_few_epsilons() -> None:
    means = {"word_at": (0.8, 0.8), "word_iat": (0.8, 0.8), "attention_at": (0.8, 0.6), "attention_iat": (0.8, 0.6)}
    lines = [
        line for name, of in means.items() for line in curve(name, "span" if name == "attention_iat" else None, of)
    ]
    span, *others = courses.sensitivity_verdicts(lines, {"sst": "pretrained"})
    reason = "sst: undecided, 2 epsilons in common; 10 of 10 data sets were not tested"
    assert (span.verdict, span.reason, span.counts) == (OPEN, reason, (0, 0, 1))
    assert all(of.reason == "10 of 10 data sets were not tested" and not of.so_far for of in others)
    few = [line for line in lines if not line["technique"].startswith("word_")]
    reason = "sst: undecided, no curve of word_at, word_iat; 10 of 10 data sets were not tested"
    assert courses.sensitivity_verdicts(few, {"sst": "pretrained"})[0].reason == reason


def test_a_course_of_few_epsilons_is_not_corrected_for() -> None:
    """It cannot decide the claim."""
    lines = [
        line
        for dataset, means in (("sst", (0.8, 0.7, 0.75, 0.6)), ("imdb", (0.8, 0.7)))
        for epsilon, mean in zip((1.0, 2.0, 4.0, 8.0), means, strict=False)
        for line in lines_of(dataset, "word_at", None, epsilon, dev=[0.8] * 2, test=[mean, mean + 0.01 * epsilon])
    ]
    found = courses.judged_courses(lines, {"sst": "pretrained", "imdb": "pretrained"})
    (one,), (few,) = found["sst"], found["imdb"]
    assert one.p_holm == one.p_value > 0 and few.p_value > 0 and math.isnan(few.p_holm)


def test_means_and_spreads_leave_undefined_figures_out() -> None:
    runs = {0: {"f1": 0.5}, 1: {"f1": None}, 2: {"f1": 0.7}}
    assert settings.mean(runs, "f1") == pytest.approx(0.6)
    assert settings.sd(runs, "f1") == pytest.approx(math.sqrt(0.02))
    assert math.isnan(settings.mean({0: {"f1": None}}, "f1")) and settings.sd({0: {"f1": 1.0}}, "f1") is None
