"""Trains and measures everything that a configuration asks for, population by population; nothing twice.

The runs of one technique and reading are a cohort. A cohort that is too large for the memory is cut into parts; the cut
is kept in `cut.json`, so that a resumed training has the same populations and with them the same figures.
"""

import functools
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from etils import epath

from flax_attnat.config import Config
from flax_attnat.data.dataset import Dataset
from flax_attnat.data.vectors import Vectors
from flax_attnat.evaluation.measure import Explain, build_explain, measure_split, result_lines
from flax_attnat.evaluation.prediction import METRICS
from flax_attnat.training.cluster import from_primary, is_primary, largest
from flax_attnat.training.loop import Progress, Stopped, fit
from flax_attnat.training.memory import OUT_OF_MEMORY, OutOfMemory, TooLarge, most_runs, with_fewer_rows
from flax_attnat.training.mesh import make_mesh
from flax_attnat.training.runs import Cohort, cohort_name, cohorts, cut, even_sizes
from flax_attnat.training.saved import Trained, finish, forget, remove_checkpoints, restore_trained
from flax_attnat.training.trainer import Trainer, build_trainer, put_buckets, with_runs
from flax_attnat.training.workdir import WorkdirError, write_atomically, write_lines

MEASURED = ("dev", "test")


class Watch(NamedTuple):
    """Who is told what, and who may stop it.

    Attributes:
      progress: `progress(part, progress)` while part of a cohort is trained; None for one that is finished.
      stop: asked between steps, every few seconds, and between measurements; true ends training with all saved.
      say: told what the user should know.
    """

    progress: Callable[[Cohort, Progress | None], None] = lambda cohort, progress: None
    stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = print


def train_all(
    config: Config, dataset: Dataset, vectors: Vectors | None, workdir: epath.PathLike, watch: Watch = Watch()
) -> None:
    """Trains and measures every cohort of a configuration that is not finished.

    Args:
      config: what to train; what `config.sweep` names is varied.
      dataset: splits train, dev and test.
      vectors: pretrained vectors of the vocabulary, or None.
      workdir: gets `results/`, `metrics/`, `trained/` and, while they are trained, `checkpoints/`.
      watch: who is told.

    Raises:
      Stopped: `watch.stop` asked; the same call goes on from there.
      TooLarge: a single run does not fit the memory of the devices.
      WorkdirError: the workdir holds what belongs to other data or another configuration.
      CheckpointError: a checkpoint could not be written.
    """
    mesh = make_mesh(config.population.data_shards)
    buckets = put_buckets(config, dataset, mesh)
    for cohort in cohorts(config):
        if from_primary(lambda cohort=cohort: is_finished(workdir, cohort)):  # type: ignore[misc]
            watch.progress(cohort, None)
            continue
        metric = METRICS[config.training.selection]
        trainer = build_trainer(cohort.config, dataset, vectors, metric, mesh=mesh, buckets=buckets)
        _train_cohort(trainer._replace(runs=cohort.runs), workdir, watch)


def is_finished(workdir: epath.PathLike, cohort: Cohort) -> bool:
    """Whether all parts of a cohort have been trained and measured."""
    sizes = _read_cuts(workdir).get(cohort_name(cohort))
    return sizes is not None and all(_is_measured(workdir, part) for part in cut(cohort, sizes))


def parts(workdir: epath.PathLike, config: Config) -> Iterator[Cohort]:
    """The populations of a workdir, as far as they have been begun."""
    cuts = _read_cuts(workdir)
    for cohort in cohorts(config):
        yield from cut(cohort, cuts.get(cohort_name(cohort), []))


def _train_cohort(trainer: Trainer, workdir: epath.PathLike, watch: Watch) -> None:
    """Trains the parts of a cohort one after another, in halves where the memory is too small for one."""
    whole = trainer.cohort
    sizes = _sizes(trainer, workdir, watch.say)
    done = 0
    explain = build_explain(trainer)
    while done < len(sizes):
        part = cut(whole, sizes)[done]
        if not from_primary(lambda part=part: _is_measured(workdir, part)):  # type: ignore[misc]
            if largest(watch.stop())[0]:
                raise Stopped
            part_trainer = with_runs(trainer, part.runs, filled=max(sizes))
            try:
                trained, seconds = _train_part(part_trainer, workdir, watch)
            except (OutOfMemory, jax.errors.JaxRuntimeError) as error:
                sizes = _halved(whole, sizes, done, error, workdir, watch.say)
                continue
            _measure_part(part_trainer, explain, trained, seconds, workdir, watch)
        watch.progress(part, None)
        done += 1


def _train_part(trainer: Trainer, workdir: epath.PathLike, watch: Watch) -> tuple[Trained, float]:
    """What is left of a population that is trained now, or was before, and the seconds that took."""
    kept = restore_trained(trainer, workdir, watch.say)
    if kept is None:
        states, seconds = fit(
            trainer,
            workdir,
            progress=lambda progress: watch.progress(trainer.cohort, progress),
            stop=watch.stop,
            say=watch.say,
        )
        trained = finish(trainer, workdir, states, seconds)
    else:
        trained, seconds = kept[0], kept[1]["position"][2]
    remove_checkpoints(workdir, trainer.cohort)
    return trained, seconds


def _measure_part(
    trainer: Trainer, explain: Explain, trained: Trained, seconds: float, workdir: epath.PathLike, watch: Watch
) -> None:
    """Measures a population and writes its lines, with fewer texts at once where the memory is too small."""
    lines = []
    for split in MEASURED:
        if largest(watch.stop())[0]:
            raise Stopped
        measure = functools.partial(measure_split, trainer, explain, trained.best_params, split)
        found = with_fewer_rows(measure)
        lines += result_lines(trainer, trained, split, found, seconds)
    if is_primary():
        write_lines(workdir, "results", cohort_name(trainer.cohort), lines)


def _sizes(trainer: Trainer, workdir: epath.PathLike, say: Callable[[str], None]) -> list[int]:
    """Into how many runs each the cohort is cut: as before, or else as many as the memory holds.

    What is not finished of an earlier cut is cut again where `config.population.max_runs` asks for fewer.
    """
    cohort, asked = trainer.cohort, trainer.config.population.max_runs
    name, runs = cohort_name(cohort), len(cohort.runs)
    before = from_primary(lambda: _read_cuts(workdir).get(name))
    if before is None:
        sizes = even_sizes(runs, min(asked, runs) if asked else most_runs(trainer))
        _write_cut(workdir, name, sizes)
        return sizes
    if sum(before) != runs:
        raise WorkdirError(f"cut.json of {workdir} does not cut {name} into its {runs} runs. Give another --workdir.")
    sizes = []
    for part in cut(cohort, before):
        smaller = even_sizes(len(part.runs), asked or len(part.runs))
        measured = from_primary(lambda part=part: _is_measured(workdir, part))  # type: ignore[misc]
        if len(smaller) > 1 and not measured:
            say(f"{cohort_name(part)}: {len(part.runs)} runs are cut into {smaller}; they are trained from the start.")
            forget(workdir, part)
            sizes += smaller
        else:
            sizes.append(len(part.runs))
    _write_cut(workdir, name, sizes)
    return sizes


def _halved(
    cohort: Cohort, sizes: list[int], place: int, error: Exception, workdir: epath.PathLike, say: Callable[[str], None]
) -> list[int]:
    """The sizes of a cut with one part in two halves, if the error is that the memory was too small for it."""
    if OUT_OF_MEMORY not in str(error):
        raise error
    size = sizes[place]
    if size == 1:
        raise TooLarge(
            f"the devices ran out of memory with a single run of {cohort_name(cohort)}. Use a smaller"
            " config.training.batch_size, or several devices and config.population.data_shards."
        ) from error
    halves = [*sizes[:place], *even_sizes(size, -(-size // 2)), *sizes[place + 1 :]]
    if jax.process_count() > 1 and not isinstance(error, OutOfMemory):  # the others do not know of it
        _write_cut(workdir, cohort_name(cohort), halves)
        raise TooLarge(
            f"the devices ran out of memory with {size} runs of {cohort_name(cohort)} at once. The same command goes on"
            " with half as many."
        ) from error
    say(f"The devices ran out of memory with {size} runs at once; going on with half as many.")
    forget(workdir, cut(cohort, sizes)[place])
    _write_cut(workdir, cohort_name(cohort), halves)
    return halves


def _is_measured(workdir: epath.PathLike, part: Cohort) -> bool:
    """Whether a population has its part of the results, which is written when all of it is known."""
    return (epath.Path(workdir) / "results" / f"{cohort_name(part)}.jsonl").exists()


def _read_cuts(workdir: epath.PathLike) -> dict[str, list[int]]:
    """Runs of each part, by the name of the cohort."""
    path = epath.Path(workdir) / "cut.json"
    try:
        cuts = json.loads(path.read_text()) if path.exists() else {}
        return {name: [int(size) for size in sizes] for name, sizes in cuts.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise WorkdirError(
            f"{path} is no list of cuts: it was changed or cut short. Give another --workdir."
        ) from error


def _write_cut(workdir: epath.PathLike, name: str, sizes: list[int]) -> None:
    """Keeps the cut of one cohort."""
    if is_primary():
        cuts = _read_cuts(workdir) | {name: sizes}
        write_atomically(epath.Path(workdir) / "cut.json", json.dumps(cuts, indent=1) + "\n")
