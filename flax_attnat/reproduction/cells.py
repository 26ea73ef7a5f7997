"""Cells and tables of the document, as Markdown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flax_attnat.reproduction.settings import Line, Name, figure_of, main_variant, mean, sd, values

TITLES = {"f1": "F1", "accuracy": "accuracy", "auc": "AUC"}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table and an empty line; only the empty line without rows."""
    rows = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    if rows:
        yield "| " + " | ".join(columns) + " |"
        yield "|" + "---|" * len(columns)
        for row in rows:
            yield "| " + " | ".join(row) + " |"
    yield ""


def technique_name(name: Name) -> str:
    """A technique with its reading."""
    return f"{name[0]} ({name[1]})" if name[1] else name[0]


def epsilon_cell(epsilon: float | None) -> str:
    """An epsilon, or a dash."""
    return "-" if epsilon is None else f"{epsilon:g}"


def percent(runs: Mapping[int, Line], figure: str, digits: int = 2) -> str:
    """Mean ± sd of a share, in per cent."""
    return _spread(runs, figure, 100, digits)


def number(runs: Mapping[int, Line], figure: str) -> str:
    """Mean ± sd of a figure."""
    return _spread(runs, figure, 1, 3)


def _spread(runs: Mapping[int, Line], figure: str, scale: float, digits: int) -> str:
    """Mean ± sd over seeds; n/a without a value."""
    if not values(runs, figure):
        return "n/a"
    off = sd(runs, figure)
    return f"{scale * mean(runs, figure):.{digits}f}" + ("" if off is None else f" ± {scale * off:.{digits}f}")


def certified(runs: Mapping[int, Line], radius: float = 0.5) -> dict[int, Line]:
    """Certified accuracy at a radius by seed, as the figure "value"; nothing of pair models."""
    return {
        seed: {"value": line["certified"][line["radii"].index(radius)]}
        for seed, line in runs.items()
        if line["certified"]
    }


def certified_cell(runs: Mapping[int, Line], radius: float = 0.5) -> str:
    """Certified accuracy at a radius, in per cent; pair models are not certified."""
    rows = certified(runs, radius)
    return percent(rows, "value", 1) if rows else "not certified"


def figure_cells(runs: Mapping[int, Line]) -> tuple[str, ...]:
    """F1 (accuracy), AUC, Pearson, tau, largest weight, certified accuracy, and seeds of a setting."""
    return (
        *(percent(runs, figure_of(runs)), percent(runs, "auc")),
        *(number(runs, "pearson_gradient"), number(runs, "kendall_gradient"), number(runs, "largest_attention")),
        *(certified_cell(runs), str(len(runs))),
    )


def seconds_cell(runs: Mapping[int, Line]) -> str:
    """Seconds of training of a run: of the longest, a share of its cohort."""
    return f"{max(line['seconds'] / line['population'] for line in runs.values()):.0f}"


def mark_of(lines: Sequence[Line], dataset: str) -> str | None:
    """partial, synthetic or simulated; None for the official data."""
    return next(line["mark"] for line in lines if line["dataset"] == dataset)


def named(lines: Sequence[Line], dataset: str) -> str:
    """A data set with its mark."""
    mark = mark_of(lines, dataset)
    return f"{dataset} ({mark})" if mark else dataset


def facts_of(lines: Sequence[Line], dataset: str, variant: str) -> dict[str, str]:
    """What the figures of a data set in one variant depend on, by title."""
    of = [line for line in lines if (line["dataset"], line["variant"], line["epoch"]) == (dataset, variant, "best")]
    first = of[0]
    sizes = {line["split"]: line["n"] for line in of}
    runs = [line for line in of if line["split"] == "dev"]
    vectors = (
        f"vectors {first['vectors']} ({first['vectors_found']:,} of {first['vocabulary'] - 2:,} words)"
        if first["vectors"]
        else "random vectors"
    )
    return {
        "data": first["mark"] or "official",
        "texts": f"{first['train_n']:,} / {sizes['dev']:,} / {sizes['test']:,}",
        "seeds": ", ".join(map(str, sorted({line["seed"] for line in of}))),
        "vectors": vectors,
        "attention": first["attention"],
        "epochs": str(first["epochs"]),
        "runs": str(len(runs)),
        "hours": f"{sum(line['seconds'] / line['population'] for line in runs) / 3600:.1f}",
        "device": ", ".join(sorted({f"{line['device']} (jax {line['jax']})" for line in of})),
    }


def described(lines: Sequence[Line], dataset: str, variant: str | None = None) -> str:
    """What the figures of a data set depend on; of its main variant, where none is named."""
    of = facts_of(lines, dataset, variant or main_variant(dataset))
    return (
        f"{dataset}: {of['data']} data, {of['texts']} texts (train / dev / test), seeds {of['seeds']}, {of['vectors']},"
        f" {of['attention']} attention, {of['epochs']} epochs; {of['hours']} hours of training on {of['device']}"
    )
