"""A trained run as one file, to be handed on: `.safetensors`, which holds arrays and text and cannot hold code.

Any reader of safetensors opens it, without this package:

    import json
    from safetensors.numpy import load_file

    tensors = load_file("run.safetensors")
    tensors["params/embedding/table"]                          # [V, E] float32
    words = json.loads(tensors["vocabulary/words"].tobytes())  # V words, by id

`params/...`: the parameters, float32, named and shaped as in Flax; a kernel is `[in, out]`.
`vocabulary/words`: uint8, the UTF-8 bytes of a JSON list of the V words: text of a header is limited, arrays are not.
`vocabulary/counts`: int64 `[V]`, how often each stood in the training texts; the word techniques normalise by it.

The field `flax_attnat` of the metadata is a JSON object: `format` (number of this layout), `config` (whole, with the
paths of its data), `run` (what names it), `labels` (names of the classes, by id), `pair` (whether a text has a query)
and `versions` (of the libraries that wrote it).
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import flax
import jax
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

import flax_attnat
from flax_attnat.config import Config, parse, to_json
from flax_attnat.data import vocabulary as vocabularies
from flax_attnat.data.vocabulary import Vocabulary
from flax_attnat.predictor import Predictor, build_predictor
from flax_attnat.training.records import run_fields
from flax_attnat.training.runs import Run
from flax_attnat.training.workdir import WorkdirError, write_atomically
from flax_attnat.typing import Params

SUFFIX = ".safetensors"
FORMAT = 1
META = "flax_attnat"
PARAMS, WORDS, COUNTS = "params/", "vocabulary/words", "vocabulary/counts"


def write_safetensors(predictor: Predictor, path: epath.PathLike) -> None:
    """Writes a run as one file, whole or not at all; the same run gives the same bytes.

    Args:
      predictor: of `fa.load`.
      path: ends in `.safetensors`; its folder is made if it is not there; may be a gs:// address.

    Raises:
      ValueError: the path ends otherwise, a key of the parameters cannot be in a name, or they are not float32.
      OSError: the file system refused.
    """
    path = _checked(path)
    tensors = {PARAMS + name: leaf for name, leaf in _flat(predictor.params)}
    for name, leaf in tensors.items():
        if leaf.dtype != np.float32:
            raise ValueError(f"parameters are written as float32 and {name} is {leaf.dtype}: convert it first.")
    words = json.dumps(predictor.vocabulary.words).encode()  # of ASCII: half a character has no bytes
    tensors |= {WORDS: np.frombuffer(words, np.uint8), COUNTS: predictor.vocabulary.counts.astype(np.int64)}
    meta = {
        "format": FORMAT,
        "config": to_json(predictor.config),
        "run": dict(predictor.run),
        "labels": list(predictor.label_names),
        "pair": predictor.pair,
        "versions": {package.__name__: package.__version__ for package in (flax_attnat, jax, flax, np, safetensors)},
    }
    # One field: the order of several is another in every process.
    write_atomically(path, safetensors.numpy.save(tensors, {META: json.dumps(meta, allow_nan=False)}))


def read_safetensors(path: epath.PathLike) -> Predictor:
    """The run that `write_safetensors` wrote: it says of texts what the run said, bit for bit on the same machine.

    Nothing that a file holds is executed, whoever wrote it.

    Args:
      path: ends in `.safetensors`; may be a gs:// address.

    Raises:
      ValueError: the path ends otherwise.
      WorkdirError: there is no such file, or it is damaged, of another format, or not of this package; the message
        says what is wrong.
    """
    path = _checked(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkdirError(f"{path} cannot be read: {error.strerror or error}. Check the path.") from error
    try:
        # A copy of what it needs of the bytes, every size and place in the header checked against them.
        tensors = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError) as error:
        _refuse(path, f"it is no safetensors file, was cut short, or holds arrays that NumPy does not know ({error})")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    meta = _read_meta(path, (header.get("__metadata__") or {}).get(META))
    try:
        config = parse(meta["config"])
        vocabulary = _vocabulary(tensors)
        _check_run(config, meta, sum(leaf.size for leaf in tensors.values()))
        params = _nested({name.removeprefix(PARAMS): leaf for name, leaf in tensors.items() if name.startswith(PARAMS)})
        return build_predictor(config, meta["run"], meta["labels"], vocabulary, meta["pair"], params)
    except (ValueError, OverflowError, RecursionError) as error:
        _refuse(path, str(error))


def _refuse(path: epath.Path, problem: str) -> NoReturn:
    """Says why a file is not read; what it quotes of the file stays one line of plain text, of bounded length."""
    plain = "".join(sign if sign.isprintable() else "\ufffd" for sign in problem)[:600].rstrip(".")
    raise WorkdirError(f"{path} cannot be read: {plain}. Write it anew with python -m launch.export.")


def _checked(path: epath.PathLike) -> epath.Path:
    """A path of this format."""
    path = epath.Path(path).expanduser()
    if path.suffix != SUFFIX:
        raise ValueError(f"{path} does not end in {SUFFIX}: give the path of a file that does.")
    return path


def _flat(params: Params, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Names `group/layer/array` and contiguous arrays of nested dictionaries."""
    for key, value in params.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise ValueError(f"parameters are named by their keys, joined by /; the key {key!r} cannot be: rename it.")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, np.asarray(jax.device_get(value), order="C")


def _nested(flat: Mapping[str, np.ndarray]) -> Params:
    """Nested dictionaries of `_flat`'s names and arrays."""
    params: dict[str, Any] = {}
    for name, leaf in sorted(flat.items()):
        *groups, last = name.split("/")
        node: Any = params
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise ValueError(f"the parameter {name!r} lies below another parameter")
        if leaf.dtype != np.float32:
            raise ValueError(f"the parameter {name!r} is {leaf.dtype} and not float32")
        node[last] = leaf
    return params


def _read_meta(path: epath.Path, text: str | None) -> dict[str, Any]:
    """The metadata, each field of its type."""
    if text is None:
        _refuse(path, f"it holds arrays, but its metadata have no field {META}: it is not of this package")
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"the field {META} of its metadata is not JSON ({error})")
    if not isinstance(meta, dict):
        _refuse(path, f"the field {META} of its metadata is no JSON object")
    if meta.get("format") != FORMAT:
        _refuse(
            path, f"its format is number {str(meta.get('format'))[:20]} and this version of flax_attnat reads {FORMAT}"
        )
    for name, kind in {"config": dict, "run": dict, "labels": list, "pair": bool}.items():
        if name not in meta:
            _refuse(path, f"its metadata lack {name}")
        if not isinstance(meta[name], kind):
            _refuse(path, f"{name} of its metadata is of the type {type(meta[name]).__name__}, not {kind.__name__}")
    return meta


def _vocabulary(tensors: Mapping[str, np.ndarray]) -> Vocabulary:
    """The words and their counts."""
    for name, dtype in {WORDS: np.uint8, COUNTS: np.int64}.items():
        if name not in tensors:
            raise ValueError(f"it lacks the array {name}")
        if tensors[name].dtype != dtype or tensors[name].ndim != 1:
            found = tensors[name]
            raise ValueError(f"{name} must be {np.dtype(dtype)} [n]; it is {found.dtype} {list(found.shape)}")
    try:
        words = json.loads(tensors[WORDS].tobytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{WORDS} is not JSON ({error})") from error
    return vocabularies.from_json({"words": words, "counts": tensors[COUNTS].tolist()})


def _check_run(config: Config, meta: Mapping[str, Any], values: int) -> None:
    """Makes sure that labels are classes, that `run` names a run of the configuration, and that sizes are possible.

    Args:
      config: of the file.
      meta: of the file, each field of its type.
      values: how many numbers its arrays hold.
    """
    labels = meta["labels"]
    if len(labels) < 2 or not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise ValueError("labels of its metadata must be two or more different names")
    like, run = run_fields(config, Run(0.0, 0.0, 0.0, 0.0, 0)), meta["run"]
    if missing := [name for name in like if name not in run]:
        raise ValueError(f"run of its metadata lacks {', '.join(missing)}")
    for name, value in run.items():
        expected = like.get(name, "")
        if isinstance(expected, float | int):
            if type(value) not in (float, int) or not math.isfinite(value):
                raise ValueError(f"{name} of its run must be a number; it is {str(value)[:60]!r}")
        elif name not in like or value != expected:
            raise ValueError(f"{name[:60]!r} of its run must be {expected!r}; it is {str(value)[:60]!r}")
    for name in ("embedding_size", "hidden_size"):
        # Before anything of that size is computed.
        if getattr(config.model, name) > values:
            raise ValueError(f"config.model.{name} is more than all its arrays hold")
