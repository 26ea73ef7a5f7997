"""Curves by hand, and the figures drawn from them: their texts, their bytes, names that are hostile."""

import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from flax_attnat.reporting import plot
from flax_attnat.reporting.curves import (
    Curve,
    alternative_text,
    draw_epsilon,
    draw_robustness,
    epsilon_curves,
    robustness_curves,
    robustness_text,
)
from flax_attnat.reporting.results import ResultsError

HOSTILE = "<script>alert(1)</script> $\\frac{$ & \"'\x00\n\u202e\ud800\u4e2d\U0001fae0"


def line(seed=0, epsilon=1.0, **fields):
    """A line of predictions."""
    plain = {"dataset": "sst", "technique": "attention_at", "reading": None, "epsilon": epsilon, "lambda": 1.0}
    plain |= {"learning_rate": 1e-3, "weight_decay": 0.0, "seed": seed, "split": "test", "n": 100, "mark": ""}
    return plain | {"f1": 0.8, "accuracy": 0.5, "pearson": 0.25, "frozen_step": None} | fields


def vanilla(seed=0, **fields):
    """A line of predictions of a run without epsilon."""
    return line(seed, None, **{"technique": "vanilla", "lambda": None}, **fields)


def robust(seed=0, **fields):
    """A line of the suite robustness."""
    plain = {"family": "robustness", "clean_accuracy": 0.9, "radii_linf": [0.5, 1.0], "radii_l2": [0.5, "inf"]}
    plain |= {"attacked_linf": [0.8, 0.6], "attacked_l2": [0.7, 0.1]}
    return line(seed) | plain | {"certified_linf": [0.75, 0.5], "certified_l2": [0.6, 0.0]} | fields


LINES = [
    *(line(seed, epsilon, f1=0.7 + 0.02 * seed + 0.01 * epsilon) for epsilon in (5.0, 0.1, 0.0) for seed in range(3)),
    *(vanilla(seed, f1=0.7 + 0.01 * seed) for seed in range(3)),
]
ROBUST = [robust(), robust(1, clean_accuracy=0.88), robust(technique="vanilla", epsilon=None, certified_linf=None)]


def svg_texts(path):
    """The texts of an SVG, in their order."""
    return ["".join(of.itertext()) for of in ElementTree.parse(path).iter() if of.tag.endswith("}text")]


def test_epsilon_curves_by_hand():
    """.70, .72, .77: mean 73, sd sqrt((9 + 1 + 16) / 2) = 3.606; by epsilon, the plain ones last."""
    runs = [vanilla(0, f1=0.71), line(0, 5.0, f1=0.7), line(1, 5.0, f1=0.72), line(2, 5.0, f1=0.77), line(0, 0.1)]
    at, plain = epsilon_curves([*runs, line(split="dev"), robust(epsilon=9.0)])
    assert (at.name, at.x, at.n) == ("attention_at", (0.1, 5.0), (1, 3))
    assert at.mean == pytest.approx((80, 73)) and at.sd[0] is None and at.sd[1] == pytest.approx(13**0.5)
    assert (plain.name, plain.x, plain.sd, plain.n) == ("vanilla", (), (None,), (1,))
    assert plain.mean == pytest.approx((71,))


def test_other_figures_keep_their_unit():
    assert epsilon_curves([line()], "pearson")[0].mean == (0.25,)
    assert epsilon_curves([line(accuracy_matched=0.75)], "accuracy_matched")[0].mean == (75,)
    assert epsilon_curves([line()], "auc") == []


def test_curves_are_told_apart_by_what_varies():
    span = {"technique": "attention_iat", "reading": "span"}
    curves = epsilon_curves([line(), line(**span), line(0, **{"lambda": 0.5}), line(weight_decay=0.1)])
    names = ["attention_at weight decay 0", "attention_iat (span) weight decay 0"]
    names += ["attention_at lambda 0.5 weight decay 0", "attention_at weight decay 0.1"]
    assert [curve.name for curve in curves] == names


def test_frozen_and_undefined_runs_do_not_count_and_the_figure_says_so(tmp_path):
    runs = [line(0), line(1, f1=0.1, frozen_step=7), line(2, f1=None), line(3, f1=0.9)]
    (curve,) = epsilon_curves(runs)
    assert curve.n == (2,) and curve.mean == pytest.approx((85,))
    _, svg = plot.save(draw_epsilon(runs, "f1", "SST"), tmp_path, "f1")
    assert "Left out: 1 frozen run." in " ".join(svg_texts(svg))


def test_robustness_curves_by_hand():
    """Clean at 0, without the infinite radius; a setting that is not certified has no such curve."""
    columns = robustness_curves([*ROBUST, line()])
    assert list(columns) == ["attention_at 1", "vanilla"]
    at = columns["attention_at 1"]
    assert (at["clean"].x, at["clean"].mean, at["clean"].n) == ((0.0,), pytest.approx((89,)), (2,))
    assert at["clean"].sd == pytest.approx((2**0.5,))
    assert at["attacked"].x == (0.5, 1.0) and at["attacked"].mean == pytest.approx((80, 60))
    assert at["certified"].mean == pytest.approx((75, 50)) and list(columns["vanilla"]) == ["clean", "attacked"]
    assert robustness_curves(ROBUST, "l2")["vanilla"]["attacked"].x == (0.5,)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line(), line()], "attention_at 1, seed 0, is there twice"),
        ([line(), line(1, dataset="imdb")], "differ in dataset: imdb, sst"),
        ([line(), line(1, mark="synthetic")], "differ in mark"),
        ([line(), line(1, n=7)], "differ in n: 100, 7"),
    ],
)
def test_lines_that_cannot_be_one_figure_are_refused(lines, said):
    with pytest.raises(ResultsError, match=said):
        epsilon_curves(lines)
    with pytest.raises(ResultsError, match=said):
        robustness_curves([robust() | of | {"family": "robustness"} for of in lines])


def test_nothing_to_draw_is_an_error():
    for lines in ([], [line(f1=None)], [line(split="dev")]):
        with pytest.raises(ResultsError, match="nothing to draw"):
            draw_epsilon(lines, "f1", "SST")
    with pytest.raises(ResultsError, match="nothing to draw"):
        draw_robustness([line()], "linf", "SST")


def test_alternative_texts():
    text = "F1 on test against epsilon from 0 to 5: attention_at from 72.0 to 77.0; vanilla 71.0."
    assert alternative_text(epsilon_curves(LINES)) == text
    assert alternative_text([Curve("vanilla", (), (0.5,), (None,), (1,))], "pearson", "dev") == (
        "Pearson on dev against epsilon: vanilla 0.500."
    )
    assert robustness_text(robustness_curves(ROBUST)) == (
        "Accuracy on test against the Linf radius from 0.5 to 1: attention_at 1 clean 89.0, attacked from 80.0 to 60.0,"
        " certified from 75.0 to 50.0; vanilla clean 90.0, attacked from 80.0 to 60.0."
    )


def test_the_figure_of_epsilon(tmp_path):
    """Band and bar at mean ± sd (sd of .70 .72 .74: 2), vanilla across; 0 on a logarithmic axis; labels as text."""
    figure = draw_epsilon(LINES, "f1", "SST")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and [of.get_text() for of in axes.get_xticklabels()] == ["0", "0.1", "5"]
    (band,) = [of for of in axes.collections if len(of.get_paths()[0].vertices) > 4]
    y = band.get_paths()[0].vertices[:, 1]
    assert (y.min(), y.max()) == pytest.approx((70.1, 79))
    (level,) = [of for of in axes.lines if np.allclose(of.get_ydata(), 71)]
    assert level.get_color() == "#000000"
    png, svg = plot.save(figure, tmp_path / "figures", "sst_f1")
    assert (png.name, svg.name) == ("sst_f1.png", "sst_f1.svg")
    texts = svg_texts(svg)
    assert {"SST", "epsilon (log scale)", "F1 on test (%)", "attention_at", "vanilla"} <= set(texts)
    assert "Mean over 3 seeds; band, or bar: ± 1 sd." in texts
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["sst_f1.png", "sst_f1.svg"]
    with Image.open(png) as image:
        assert image.width == 700 and image.info.get("Software") is None


def test_one_seed_has_no_band():
    figure = draw_epsilon([line(), line(0, 2.0), vanilla()], "f1", "SST")
    axes = figure.axes[0]
    assert figure.legends[0].get_title().get_text() == "One seed."
    assert not [of for of in axes.collections if len(of.get_paths()) and len(of.get_paths()[0].vertices)]
    assert not axes.patches


def test_the_figure_of_robustness(tmp_path):
    """Attacked solid, certified dashed, clean at 0; what the data are is in the title; infinity is left out aloud."""
    lines = [of | {"mark": "synthetic"} for of in ROBUST]
    _, svg = plot.save(draw_robustness(lines, "l2", "Planted"), tmp_path, "l2")
    texts = svg_texts(svg)
    assert {"Planted (synthetic data)", "accuracy on test (%)", "attention_at 1", "vanilla", "0", "0.5"} <= set(texts)
    assert "Radius inf is left out." in " ".join(texts) and "L2" in " ".join(texts)
    axes = draw_robustness(ROBUST, "linf", "Planted").axes[0]
    found = {tuple(np.round(of.get_ydata(), 6)): of for of in axes.lines}
    assert found[80.0, 60.0].get_linestyle() == "-" and found[75.0, 50.0].get_linestyle() == "--"
    assert found[(89.0,)].get_xdata()[0] < 0.5 and "Radius" not in axes.figure.legends[0].get_title().get_text()


def test_the_same_lines_give_the_same_bytes_whatever_the_settings_of_the_user(tmp_path):
    before = dict(matplotlib.rcParams)
    for folder in ("a", "b"):
        with matplotlib.rc_context({"font.size": 30 if folder == "b" else 10, "svg.fonttype": "path"}):
            plot.save(draw_epsilon(LINES, "f1", "SST"), tmp_path / folder, "f1")
            plot.save(draw_robustness(ROBUST, "linf", "SST"), tmp_path / folder, "linf")
    for name in ("f1.png", "f1.svg", "linf.png", "linf.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_hostile_names_are_text(tmp_path):
    """Neither formulas nor elements; what no font draws is replaced, a long name is cut, an underscore shown."""
    lines = [line(technique=HOSTILE), line(technique="_hidden"), line(technique="x" * 9999), line(technique="")]
    attacked = [robust(technique=of["technique"], mark="\x1b[31m") for of in lines]
    figures = [draw_epsilon(lines, "f1", HOSTILE), draw_robustness(attacked, "linf", HOSTILE * 99)]
    for number, figure in enumerate(figures):
        _, svg = plot.save(figure, tmp_path, f"hostile{number}")
        tags = {of.tag.split("}")[-1] for of in ElementTree.parse(svg).iter()}
        assert "script" not in tags and b"<script" not in svg.read_bytes()
        texts = " ".join(svg_texts(svg))
        assert "<script>alert(1)</script>" in texts and "_hidden" in texts and "x" * 41 not in texts
        assert not set(texts) & set("\x00\x1b\u202e\u4e2d\U0001fae0")
    assert "\u202e" not in alternative_text(epsilon_curves(lines))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a\x00", "é", "a b"])
def test_names_of_files_stay_in_the_folder(tmp_path, name):
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        plot.save(draw_epsilon(LINES, "f1", "SST"), tmp_path / "inside", name)
    assert not list(tmp_path.iterdir())


def test_looks_differ_in_grey_too():
    """Markers and dashes are each technique's own, a technique's look the same in every figure."""
    looks = plot.looks(list(plot.KNOWN))
    for of in range(3):
        assert len({look[of] for look in looks}) == len(plot.KNOWN)
    assert plot.looks(["word_at 5"]) == [looks[plot.KNOWN.index("word_at")]]
    for readings in (["released"], ["span", "released"], ["released", "token", "span"]):
        found = plot.looks(["vanilla", *(f"attention_iat ({reading})" for reading in readings)])
        assert found[1 + readings.index("released")] == looks[plot.KNOWN.index("attention_iat (released)")]
        assert "span" not in readings or found[1 + readings.index("span")] == looks[plot.KNOWN.index("attention_iat")]
    several = plot.looks([*plot.KNOWN, "attention_iat (span)", *(f"other{number}" for number in range(40))])
    assert several[: len(looks)] == looks and len(set(several)) == len(several)
    # Contrast with white of at least 1.9 (relative luminance of WCAG), so that no line is lost on paper.
    for look in looks:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(look.colour)]
        assert 1.05 / (np.dot(parts, (0.2126, 0.7152, 0.0722)) + 0.05) > 1.9


@pytest.mark.parametrize("epsilons", [[0.0], [5.0], [0.0, 5.0], [1e-12, 1e12], [0.1 * 1.1**k for k in range(40)]])
def test_any_range_of_epsilon_can_be_drawn(tmp_path, epsilons):
    figure = draw_epsilon([line(0, epsilon) for epsilon in epsilons], "f1", "SST")
    plot.save(figure, tmp_path, "f1")
    labels = [of.get_text() for of in figure.axes[0].get_xticklabels()]
    assert 1 <= len(labels) <= plot.MOST_TICKS + 1 and len(set(labels)) == len(labels)
    assert (labels[0] == "0") == (0.0 in epsilons)


def test_pyplot_is_not_imported():
    """It keeps every figure in memory, and looks for a screen."""
    code = "import sys, flax_attnat.reporting.curves; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_points_of_one_epsilon_are_beside_each_other_and_in_the_figure():
    """All of them inside the axis, the middle one in its place, and the figure says so."""
    figure = draw_epsilon([line(technique=name, epsilon=5.0) for name in plot.TECHNIQUES[1:]], "f1", "SST")
    (axes,) = figure.axes
    x = [float(of.get_xdata()[0]) for of in axes.lines]
    left, right = axes.get_xlim()
    assert len(set(x)) == 5 and left < min(x) and max(x) < right and sorted(x)[2] == pytest.approx(5)
    assert "side by side" in figure.legends[0].get_title().get_text()


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (0.0, 0.5), (0.0, 1.0)])
def test_bands_of_shares_end_where_shares_do(low, high):
    """Seeds far apart: the band of one standard deviation would pass 100 or 0 per cent."""
    lines = [line(seed, epsilon, f1=value) for epsilon in (1.0, 5.0) for seed, value in enumerate((low, high, high))]
    axes = draw_epsilon(lines, "f1", "").axes[0]
    bottom, top = axes.get_ylim()
    assert bottom > -5 and top < 105 and (top > 100) == (high == 1)
    assert all(bottom < y < top for drawn in axes.lines for y in drawn.get_ydata() if y)
    other = [line(seed, epsilon, pearson=value) for epsilon in (1.0, 5.0) for seed, value in enumerate((0.0, 1.0))]
    assert draw_epsilon(other, "pearson", "").axes[0].get_ylim()[1] > 1.1, "what is no share has its whole band"
