"""launch.reproduce from the command line: an estimate first, what is done is not done again, and one document."""

import gzip
import json
import math

import pytest

from configs import planted, reproduction
from launch import cli, reproduce


def small(dataset: str):
    """The planted texts, hardly trained."""
    config = planted.get_config()
    config.model.hidden_size, config.model.embedding_size, config.training.epochs = 4, 8, 1
    return config


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the command in a folder of its own, on a grid of two settings."""
    parts = [
        reproduction.Part("planted", "random", "vanilla", None, None, (0, 1)),
        reproduction.Part("planted", "random", "attention_iat", "span", 5.0, (0, 1)),
    ]
    monkeypatch.setattr(reproduction, "base", small)
    monkeypatch.setattr(reproduction, "DATASETS", ("planted",))
    monkeypatch.setattr("flax_attnat.reproduction.settings.DATASETS", ("planted",))
    monkeypatch.setattr(reproduction, "parts", lambda datasets, full: parts)
    monkeypatch.setattr("flax_attnat.reproduction.settings.RANDOM", ("planted",))

    def run(*flags: str) -> int:
        folders = [f"--{name}={tmp_path / name}" for name in ("workdir", "records", "data_dir")]
        return cli.run(reproduce, reproduce.main, ["reproduce", *folders, f"--out={tmp_path / 'out.md'}", *flags])

    return run


def test_it_trains_what_is_missing_and_writes_the_record(command, tmp_path, capsys) -> None:
    assert command("--budget_hours=1", "--datasets=planted") == 0
    said = capsys.readouterr().out
    assert "4 runs of 2 settings are left, estimated at" in said and "f1 " in said
    files = sorted(path.name for path in (tmp_path / "records").glob("*.gz"))
    assert len(files) == 2 and files[0] == "planted-random-attention_iat-span-5-seeds0.1.jsonl.gz"
    document = (tmp_path / "out.md").read_text()
    assert "attention_iat (span)" in document and "planted (synthetic): " in document
    before = document, [(tmp_path / "records" / name).read_bytes() for name in files]
    assert command("--budget_hours=1", "--datasets=planted") == 0
    assert "Everything that was asked for is done." in capsys.readouterr().out
    after = (tmp_path / "out.md").read_text(), [(tmp_path / "records" / name).read_bytes() for name in files]
    assert after == before


def test_an_epsilon_that_is_chosen_waits_for_what_is_trained_before_it(command, monkeypatch, tmp_path, capsys) -> None:
    """From an empty record on: the part is planned though its epsilon is not known yet."""
    parts = [
        reproduction.Part("planted", "random", "attention_iat", "span", 5.0, (0,)),
        reproduction.Part("planted", "scaled_dot", "attention_iat", "span", "chosen", (0,)),
    ]
    monkeypatch.setattr(reproduction, "parts", lambda datasets, full: parts)
    assert command("--budget_hours=1", "--datasets=planted") == 0
    assert "2 runs of 2 settings are left" in capsys.readouterr().out
    files = sorted(path.name for path in (tmp_path / "records").glob("*.gz"))
    assert files == [f"planted-{variant}-attention_iat-span-5-seeds0.jsonl.gz" for variant in ("random", "scaled_dot")]


def test_a_budget_that_is_too_small_trains_nothing(command, tmp_path, capsys) -> None:
    assert command("--budget_hours=0.000001", "--datasets=planted") == 0
    assert "2 of 2 settings are for another time" in capsys.readouterr().out.replace("\n", " ")
    assert "no claim was tested" in (tmp_path / "out.md").read_text()


def test_a_budget_that_ends_within_a_setting_saves_it(command, tmp_path, capsys, monkeypatch) -> None:
    """It has no lines yet; the next budget goes on with it."""
    with monkeypatch.context() as patched:
        patched.setattr(reproduce, "LEAST_SECONDS", -math.inf)  # whatever the estimate took
        assert command("--budget_hours=0.000001", "--datasets=planted") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "The budget is over within planted-" in said and "2 of 2 settings are for another time" in said
    assert list(tmp_path.rglob("*_CHECKPOINT_METADATA")) and not list(tmp_path.rglob("*.jsonl.gz"))
    assert command("--budget_hours=1", "--datasets=planted") == 0
    assert len(list(tmp_path.rglob("*.jsonl.gz"))) == 2


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--budget_hours=much"], "--budget_hours must be a number of hours such as 2.5; got 'much'."),
        (["--budget_hours=-1"], "--budget_hours must be a number of hours such as 2.5; got '-1'."),
        (["--datasets=planted,mnist"], "--datasets names some of"),
        (["--dataset=planted"], "See --help."),
        (["--records=nowhere"], "--records=nowhere is not there: give a folder of records"),
        (["--records=pyproject.toml"], "--records=pyproject.toml is a file: give a folder."),
        (["--records=nowhere://x"], "--records=nowhere://x cannot be opened"),
        (["--workdir=nowhere://x"], "--workdir=nowhere://x cannot be opened"),
        (["--budget_hours=1", "--out=nowhere://x"], "--out=nowhere://x cannot be opened"),
        (["--budget_hours=1", "--out=docs"], "--out=docs is a folder: give a file."),
    ],
)
def test_a_command_that_cannot_be_used_is_a_sentence(command, capsys, flags, sentence) -> None:
    known = [] if any(flag.startswith("--dataset") for flag in flags) else ["--datasets=planted"]
    assert command(*known, *flags) == cli.USAGE
    assert sentence in capsys.readouterr().err


def test_lines_of_other_data_are_said_before_anything_is_trained(command, tmp_path, capsys) -> None:
    """A record of another vocabulary: what would be trained now could not stand beside it."""
    assert command("--budget_hours=1", "--datasets=planted") == 0
    first, second = sorted((tmp_path / "records").glob("*.gz"))
    lines = [json.loads(line) for line in gzip.decompress(first.read_bytes()).splitlines()]
    first.write_bytes(gzip.compress("".join(json.dumps(line | {"vocabulary": 7}) + "\n" for line in lines).encode()))
    second.unlink()
    capsys.readouterr()
    assert command("--budget_hours=1", "--datasets=planted") == cli.USAGE
    said = capsys.readouterr().err
    assert "are of other data" in said and "of 7 words" in said and "Remove planted-*.jsonl.gz there" in said
    assert not second.exists() and not list((tmp_path / "workdir").glob("planted*"))


def test_pretrained_vectors_are_asked_for_by_name(command, monkeypatch, capsys) -> None:
    part = reproduction.Part("planted", "pretrained", "vanilla", None, None, (0,))
    monkeypatch.setattr("flax_attnat.reproduction.settings.RANDOM", ())
    monkeypatch.setattr(reproduction, "parts", lambda datasets, full: [part])
    assert command("--budget_hours=1", "--datasets=planted") == cli.USAGE
    assert "say where they are, --vectors=FILE" in capsys.readouterr().err


def test_the_grid_answers_the_claims_first() -> None:
    """Controls and the techniques of the claims come before the ends of the curves; nothing is there twice."""
    found = reproduction.parts(("sst", "babi1", "imdb"), full=False)
    assert len(set(found)) == len(found)
    sst = [part for part in found if part.dataset == "sst" and part.variant == "pretrained"]
    first = {(part.technique, part.reading, part.epsilon) for part in sst[:10]}
    assert {("vanilla", None, None), ("attention_at", None, 0.0), ("attention_iat", "span", 1.0)} <= first
    assert {part.seeds for part in sst} == {(0, 1, 2)}
    assert {part.variant for part in found if part.dataset == "babi1"} == {"random", "scaled_dot"}
    imdb = {part.technique for part in found if part.dataset == "imdb"}
    assert imdb == {"vanilla", "attention_rp", "attention_at", "attention_iat"}
    full = reproduction.parts(reproduction.DATASETS, full=True)
    last = max(place for place, part in enumerate(full) if part.dataset == "sst" and part.variant == "pretrained")
    chosen = [place for place, part in enumerate(full) if part.dataset == "sst" and part.epsilon == "chosen"]
    assert chosen and min(chosen) > last, "what is chosen among all epsilons comes after them"
    for name in reproduction.DATASETS:
        epsilons = {part.epsilon for part in full if part.dataset == name and part.technique == "word_iat"}
        assert set(reproduction.EPSILONS) <= epsilons
    assert {part.seeds for part in full} == {(0, 1, 2, 3, 4)}
