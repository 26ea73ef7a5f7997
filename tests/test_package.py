"""The package as its users get it: what is in the wheel, that it works without the checkout, what its sources avoid."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import flax_attnat as fa

ROOT = Path(__file__).parents[1]
FOLDERS = ("flax_attnat", "launch", "configs", "benchmarks", "docs", "tests")
DATA_FILES = {
    "flax_attnat/py.typed",
    *(f"flax_attnat/reporting/templates/{name}.html" for name in ("heatmap", "page", "words")),
    *(f"flax_attnat/reporting/templates/{name}" for name in ("page.css", "words.css", "filter.js")),
    "flax_attnat/data/sst/CITATIONS.bib",
    "flax_attnat/data/sst/README.md",
    "flax_attnat/data/sst/TAGS.txt",
}

# Run without `site` and its .pth files, so that an editable installation cannot stand in for the wheel.
USE = """
import json, sys
sys.path[:0] = [sys.argv[1]]
sys.path += sys.argv[2:]
import flax_attnat as fa
light = not {"flax", "optax", "orbax", "tensorflow_datasets", "spacy", "sklearn", "matplotlib"} & set(sys.modules)
import importlib.metadata, importlib.resources
import jax.numpy as jnp
from flax_attnat.reporting.heatmap import Sentence, render
missing = [name for name in fa.__all__ if not hasattr(fa, name)]
direction = jnp.array([[3.0, 4.0, 9.0]])
mask = jnp.array([[True, True, False]])
r = fa.attention_at(lambda delta: jnp.sum(direction * delta, axis=-1), jnp.zeros((1, 3)), mask, 0.5)
print(json.dumps({
    "file": fa.__file__,
    "version": fa.__version__,
    "metadata": importlib.metadata.version("flax_attnat"),
    "light": light,
    "missing": missing,
    "r": r.tolist(),
    "page": "Content-Security-Policy" in render("Title", "Note.", []),
    "tags": importlib.resources.files("flax_attnat.data.sst").joinpath("TAGS.txt").is_file(),
    "modules": [module.__file__ for name, module in sys.modules.items() if name.startswith("flax_attnat")],
}))
"""


def run(*command, cwd):
    """Standard output of a command that must succeed, started outside the checkout and without its variables."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT), cwd=out)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_alone_with_its_data_files(wheel):
    """One top-level package, every source file of it, templates, the builder's files and the typing marker."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"flax_attnat", f"flax_attnat-{fa.__version__}.dist-info"}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "flax_attnat").rglob("*.py")}
    assert sources | DATA_FILES <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".array_record"))]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_installed_wheel_works_without_the_checkout(wheel, tmp_path):
    """Installed alone, `attention_at` of a linear loss is epsilon g / ||g||: (0.3, 0.4) for g = (3, 4), epsilon 0.5."""
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, "--target", str(target), str(wheel), cwd=tmp_path)
    places = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    said = json.loads(run(sys.executable, "-I", "-S", "-c", USE, str(target), *places, cwd=tmp_path))
    assert Path(said["file"]) == target / "flax_attnat" / "__init__.py"
    assert all(Path(name).is_relative_to(target) for name in said["modules"])
    assert said["missing"] == [] and said["light"] and said["page"] and said["tags"]
    assert said["r"][0] == pytest.approx([0.3, 0.4, 0.0])
    assert said["version"] == said["metadata"] == fa.__version__


def test_the_version_stands_in_one_place():
    """pyproject.toml reads it from the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"] and project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "flax_attnat/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", fa.__version__)


def test_the_public_names_are_those_that_are_imported():
    """`__all__` is sorted, and what `__init__` imports is what it exports."""
    tree = ast.parse((ROOT / "flax_attnat" / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module != "typing"]
    assert {a.asname or a.name for node in imports for a in node.names} == set(fa.__all__) <= set(dir(fa))
    assert list(fa.__all__) == sorted(fa.__all__) and all(getattr(fa, name) is not None for name in fa.__all__)


def test_what_loads_runs_is_imported_when_it_is_asked_for():
    """By either way of asking; what the package has not stays an error."""
    script = "import sys; from flax_attnat import load; print(load.__module__, 'orbax.checkpoint' in sys.modules)"
    assert run(sys.executable, "-c", script, cwd=ROOT) == "flax_attnat.predictor True\n"
    assert fa.load is importlib.import_module("flax_attnat.predictor").load
    with pytest.raises(AttributeError, match=r"module 'flax_attnat' has no attribute 'loads'"):
        getattr(fa, "loads")  # noqa: B009


def sources(*suffixes):
    """Source files of the project with the given suffixes."""
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in suffixes]


def test_nothing_unpickles():
    """A file that somebody hands over may not run code: no source imports a module that unpickles."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = []
    for path in sources(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
            found += [(path.name, name) for name in names if name.split(".")[0] in forbidden]
    assert found == []


def test_no_source_names_a_place_outside_the_repository():
    """No absolute path of somebody's machine, in code, scripts, pages or documents."""
    place = re.compile(r"(?<![\w.:/])(?:/(?:home|Users|root|work|mnt|srv|scratch|opt|tmp)\b/?|[A-Z]:\\+Users)")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in [
            *sources(".py", ".sh", ".md", ".html", ".bib", ".txt"),
            ROOT / "README.md",
            ROOT / "pyproject.toml",
        ]
        if path != Path(__file__)
        for line in path.read_text().splitlines()
        if place.search(line)
    ]
    assert found == []
