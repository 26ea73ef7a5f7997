"""Raw files of the official form for the data sets that are not to be had here; the texts are ours."""

import json
import random
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

PLACES = ("a harbour", "the old market", "a mountain village", "the northern station", "a quiet island")
DEEDS = ("met", "thanked", "accused", "visited", "called", "praised")


def cnn_question(rng: random.Random, number: int) -> str:
    """One file of the question archive: who did it is named in the passage."""
    people = [f"@entity{n}" for n in rng.sample(range(12), 4)]
    deed, place = rng.choice(DEEDS), rng.choice(PLACES)
    lines = [f"{people[i]} {DEEDS[(i + number) % 6]} {people[(i + 1) % 4]} near {rng.choice(PLACES)}" for i in range(4)]
    lines.insert(rng.randrange(4), f"on monday {people[2]} {deed} the mayor near {place}")
    passage = " . ".join(lines)
    question = f"@placeholder {deed} the mayor near {place}"
    names = "\n".join(f"{person}:Person {person[7:]}" for person in people)
    return f"http://example.org/{number}\n\n{passage}\n\n{question}\n\n{people[2]}\n\n{names}\n"


def write_cnn(folder: Path, rows: int = 120) -> None:
    """`cnn.tgz` with `rows` training questions and a third as many for dev and test each."""
    rng = random.Random(0)
    with tarfile.open(folder / "cnn.tgz", "w:gz") as archive:
        for split, count in (("training", rows), ("validation", rows // 3), ("test", rows // 3)):
            for number in range(count):
                data = cnn_question(rng, number).encode()
                entry = tarfile.TarInfo(f"cnn/questions/{split}/{split}{number:04}.question")
                entry.size = len(data)
                archive.addfile(entry, BytesIO(data))


def multi_nli_row(rng: random.Random, number: int, genre: str) -> str:
    """One line of the archive, with every official field that matters; every seventeenth has no majority."""
    label = ("entailment", "neutral", "contradiction")[number % 3]
    place, deed = rng.choice(PLACES), rng.choice(DEEDS)
    premise = f"The captain {deed} the crew in {place}, and {rng.randrange(2, 90)} people saw it."
    hypothesis = {
        "entailment": f"The captain {deed} the crew.",
        "neutral": f"The crew wanted the captain to see {place} again.",
        "contradiction": f"The captain never {deed} the crew.",
    }[label]
    gold = "-" if number % 17 == 16 else label
    pair = f"{number}{label[0]}"
    fields = {"pairID": pair, "promptID": str(number), "genre": genre, "annotator_labels": [label]}
    return json.dumps(fields | {"gold_label": gold, "sentence1": premise, "sentence2": hypothesis}) + "\n"


def write_multi_nli(folder: Path, rows: int = 180) -> None:
    """`multinli_1.0.zip` with `rows` training pairs and a third as many in both dev files."""
    rng = random.Random(0)
    with zipfile.ZipFile(folder / "multinli_1.0.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for split, count, genre in (
            ("train", rows, "fiction"),
            ("dev_matched", rows // 3, "fiction"),
            ("dev_mismatched", rows // 3, "letters"),
        ):
            text = "".join(multi_nli_row(rng, number, genre) for number in range(count))
            archive.writestr(f"multinli_1.0/multinli_1.0_{split}.jsonl", text)
