"""What all entry points share: flags, help, and errors that are sentences."""

import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import jax
from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags
from rich.console import Console

from flax_attnat.allowed import ConfigError, suggest
from flax_attnat.config import Config, flatten, parse

USAGE, FAILED, FROZEN = 2, 1, 3
"""Exit codes: the command or its input is wrong; something failed while running; a run was frozen."""


CLUSTER = {
    "coordinator": "address of the first process",
    "num_processes": "how many processes train together",
    "process_id": "number of this one",
}
"""Flags of one process among several."""


class UsageError(ValueError):
    """A command line that cannot be used; the message says what to change."""


class Notes(logging.Handler):
    """Prints what the library logs as notes, above a bar where there is one: rich replaces `sys.stderr` meanwhile."""

    def emit(self, record: logging.LogRecord) -> None:
        """One sentence."""
        print(f"note: {record.getMessage()}", file=sys.stderr)


def run(module: ModuleType, main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Runs `main(argv)`, turning `--help` into the module's docstring and known errors into one sentence and exit 2.

    Args:
      module: the entry point; its docstring is its help text.
      main: does the work and returns the exit code.
      argv: program name and arguments; None: those of the process.
    """
    from flax_attnat.data.errors import DataError
    from flax_attnat.reporting.export import visible
    from flax_attnat.reporting.results import ResultsError
    from flax_attnat.training.checkpoint import CheckpointError
    from flax_attnat.training.cluster import ClusterError
    from flax_attnat.training.memory import TooLarge
    from flax_attnat.training.workdir import WorkdirError

    if argv is None:
        argv = _own_arguments()
    if {"--help", "-h", "-help", "--helpfull"} & set(argv):
        print(inspect.getdoc(module))
        return 0

    def failed(sentence: str | Exception, code: int = FAILED) -> int:
        """Says what was wrong; one process among several then ends at once: the others may wait for it in vain."""
        print(f"error: {visible(str(sentence))}", file=sys.stderr, flush=True)
        if jax.distributed.is_initialized():
            sys.stdout.flush()
            os._exit(code)
        return code

    try:
        return main(argv)
    except (UsageError, ConfigError, DataError, WorkdirError, ClusterError, ResultsError) as error:
        return failed(error, USAGE)
    except (CheckpointError, TooLarge) as error:
        return failed(error)
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized():
            raise
        return failed(_lost(error))
    except BrokenPipeError:  # whoever reads has gone; Python would complain of it again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if jax.distributed.is_initialized():
            os._exit(FAILED)
        return FAILED
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return failed(
            f"the file system refused{where}: {error.strerror or error}. Nothing that was written before is "
            "lost; make room or check permissions, and run the same command again."
        )
    except KeyboardInterrupt:
        return 130


def _own_arguments() -> list[str]:
    """The arguments of a process of its own, whose notes are shown; libraries may have set up logging already."""
    logging.basicConfig(handlers=[Notes()], force=True)
    logging.getLogger("flax_attnat").setLevel(logging.INFO)
    return sys.argv


def has_flag(argv: Sequence[str], name: str) -> bool:
    """Whether a command line has the flag `--NAME`, with or without a value."""
    return any(re.fullmatch(f"--?{name}(=.*)?", argument, re.DOTALL) for argument in argv[1:])


def flag_values(
    argv: Sequence[str], strings: Mapping[str, str], *, switches: Mapping[str, str] | None = None, config: bool
) -> flags.FlagValues:
    """Parses a command line of `--NAME=VALUE` flags and, if asked, of `--config=FILE --config.FIELD=VALUE`.

    Args:
      argv: program name and arguments.
      strings: flag names and their help.
      switches: flags without a value, and their help.
      config: whether `--config` is expected.

    Raises:
      UsageError: an unknown flag, a leftover argument, a config file that is missing or fails.
      ConfigError: an override of a field that does not exist, or of the wrong type.
    """
    values = flags.FlagValues()
    for name, text in strings.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    for name, text in (switches or {}).items():
        flags.DEFINE_boolean(name, False, text, flag_values=values)
    if config:
        _check_overrides(argv)
        config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=list(argv))
    try:
        rest = values(list(argv))
    except flags.IllegalFlagValueError as error:
        raise ConfigError(_plain(error)) from error
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f"{_plain(error)}{_fuller(error.flagname, strings, config=config)} See --help.") from error
    except flags.Error as error:
        raise UsageError(f"{_plain(error)} See --help.") from error
    except Exception as error:  # whatever the config file raises while it is executed
        raise UsageError(f"{_config_file(argv)} cannot be used: {type(error).__name__}: {_plain(error)}") from error
    if len(rest) > 1:
        raise UsageError(f"unexpected argument {rest[1]!r}: flags are written --NAME=VALUE. See --help.")
    return values


def console() -> Console:
    """Where a person reads: as wide as the terminal, or 120 columns where there is none; the first process only."""
    from flax_attnat.training.cluster import is_primary

    quiet = not is_primary()
    return _Console(quiet=quiet) if sys.stdout.isatty() else _Console(width=120, quiet=quiet)


class _Console(Console):
    """A console that leaves it to its user what to do when nobody reads any more; rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Raises as `print` does."""
        raise BrokenPipeError


def connect(values: flags.FlagValues) -> None:
    """Joins the other processes, if there are any; only the first one writes to the terminal.

    Raises:
      UsageError: a flag is not a whole number.
      ClusterError: the others cannot be reached.
    """
    from flax_attnat.training import cluster

    numbers = {}
    for name in ("num_processes", "process_id"):
        text = getattr(values, name)
        if text is not None and not text.isdecimal():
            raise UsageError(f"--{name} must be a whole number; got {text!r}.")
        numbers[name] = None if text is None else int(text)
    cluster.connect(values.coordinator, numbers["num_processes"], numbers["process_id"])
    if not cluster.is_primary():
        logging.getLogger("flax_attnat").setLevel(logging.ERROR)


def keep_programs(workdir: epath.Path) -> None:
    """Keeps compiled programs in a workdir, unless the environment says where else."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        place = workdir if "://" in str(workdir) else Path(workdir).absolute()
        jax.config.update("jax_compilation_cache_dir", str(place / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _lost(error: Exception) -> str:
    """What is said when processes that train together fail."""
    return (
        f"this or another process of the training failed or cannot be reached ({_plain(error)[:200]}) Start all"
        " processes again with the same command: training goes on from the last checkpoint."
    )


def open_workdir(workdir: str | None, flag: str = "workdir") -> epath.Path:
    """The folder or gs:// address of a workdir, or of another flag, which need not be there yet.

    Raises:
      UsageError: none is given, it is a file, or its address is of a kind that nothing here can open.
    """
    if not workdir:
        raise UsageError(f"--{flag}=DIR is missing: say where configuration, checkpoints and results are.")
    path, there, folder = _look(workdir, flag)
    if there and not folder:
        raise UsageError(f"--{flag}={workdir} is a file: give a folder.")
    return path


def open_file(address: str, flag: str) -> epath.Path:
    """The path or gs:// address of a file to write, which need not be there yet.

    Raises:
      UsageError: it is a folder, or its address is of a kind that nothing here can open.
    """
    path, _, folder = _look(address, flag)
    if folder:
        raise UsageError(f"--{flag}={address} is a folder: give a file.")
    return path


def _look(address: str, flag: str) -> tuple[epath.Path, bool, bool]:
    """A path or gs:// address, whether something is there, and whether that is a folder."""
    try:
        path = epath.Path(address).expanduser()
        return path, path.exists(), path.is_dir()
    except (KeyError, ImportError) as error:
        raise UsageError(
            f"--{flag}={address} cannot be opened ({_plain(error)[:-1]}): give a local path, or a gs:// address with"
            " the extra gcloud installed."
        ) from error


def read_config(values: flags.FlagValues) -> Config:
    """The checked configuration of a command line."""
    if not isinstance(values.config, Mapping | ConfigDict):
        raise UsageError(f"get_config() of the file --config must return a ConfigDict; it returned {values.config!r}.")
    return parse(values.config)


def _check_overrides(argv: Sequence[str]) -> None:
    """Raises before anything is loaded if `--config` is missing, names no file, or an override names no field."""
    fields = flatten(Config())
    file = _config_file(argv)
    if file is None:
        raise UsageError("--config=FILE is missing: give a file of configs/, for example --config=configs/planted.py.")
    if not Path(file.split(":")[0]).is_file():
        raise UsageError(f"--config={file}: there is no such file; the experiments are in configs/.")
    for argument in argv:
        match = re.match(r"--?config\.([^=]+)(=?)", argument)
        if match and match.group(1) not in fields:
            raise ConfigError(f"config.{match.group(1)} is not a field{suggest(match.group(1), fields)}")


def _fuller(name: str, strings: Iterable[str], *, config: bool) -> str:
    """A question where a flag that is not known has the name of a field without its groups, or the other way round."""
    if config:
        meant = [f"config.{field}" for field in flatten(Config()) if name in (field, field.rpartition(".")[2])]
    else:
        meant = [flag for flag in strings if name == f"config.data.{flag}"]
    return f" Did you mean --{meant[0]}?" if meant else ""


def _config_file(argv: Sequence[str]) -> str | None:
    """What the last `--config=` names, or None."""
    return next((a.split("=", 1)[1] for a in reversed(argv) if re.match(r"--?config=", a)), None)


def _plain(error: Exception) -> str:
    """An exception's message on one line, with a full stop."""
    text = " ".join(str(error.args[0] if error.args else error).split())
    return text if text.endswith((".", "?", "!")) else text + "."
