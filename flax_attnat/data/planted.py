"""The data set `planted`: short film reviews from a small grammar, whose deciding words are known.

A review joins two or three clauses by connectives, in any order. One of them is the verdict; the others do not count.

    verdict    = ("the" | ...) PART COPULA opinion              "the plot was hardly very good"
    distractor = ("the" | ...) THING COPULA opinion             "the trailer was not really good"
               | ("my" | ...) PERSON ("found it" | ...) opinion "my sister found it awful"
    neutral    = PRONOUN [NEGATOR] DEED "the" OBJECT [PLACE] [TIME]
    opinion    = [NEGATOR] [ADVERB] (GOOD | BAD)

The label is the polarity of the verdict's last word, reversed where a negator precedes it. Distractors are as often
good as bad, and negated as often as verdicts, whatever the label, so a bag of words says little: whose opinion it is
and whether it is negated show only in the words just before. `rationale` holds the positions of the verdict's negator,
where it has one, and of its polarity word.

A fraction `NOISE` of each class in each split carries the wrong label; the words and the rationale stay those of the
true one, so no classifier is expected above 1 - NOISE. Classes are exactly balanced and no text occurs twice.
"""

import random
from collections.abc import Sequence

from flax_attnat.data.source import Example

NOISE = 0.04
LABEL_NAMES = ("negative", "positive")
SIZES = {"train": 2400, "dev": 400, "test": 400}

# At one half the polarity words alone would say nothing to start learning from; far below it a bag of words does well.
NEGATED = 0.28
OTHERS = ("n", "d", "d", "dn", "dn", "dd", "dd")  # d: a distractor, n: a neutral clause, beside the verdict


def _list(text: str, separator: str | None = None) -> tuple[str, ...]:
    """Cuts a list written as one text, at white space unless told otherwise."""
    return tuple(text.split(separator))


GOOD = _list(
    "good great superb brilliant delightful charming moving gripping clever witty elegant fresh tender thrilling "
    "wonderful memorable"
)
BAD = _list(
    "bad awful terrible dull tedious clumsy boring shallow stale bland messy dreadful weak silly hollow forgettable"
)
NEGATORS = ("not", "never", "hardly")
ADVERBS = ("very", "really", "quite", "truly", "especially", "really very", "so very")
COPULAS = ("was", "is", "felt", "seemed", "looked")
PARTS = _list("film movie plot acting script dialogue story cast direction photography screenplay")
THINGS = _list("trailer sequel popcorn poster lobby novel musical game concert dinner weather")
PEOPLE = _list("sister brother neighbour uncle aunt cousin teacher boss dentist friend barber")
VIEWS = ("found it", "called it", "thought it", "considered it", "said it was", "believed it was")
OWNERS = _list("my our his her their your")
DETERMINERS = ("the", "this", "that")
PRONOUNS = _list("we i they he she you everyone somebody")
DEEDS = _list(
    "watched left entered bought borrowed noticed remembered missed saw carried opened closed crossed visited reached "
    "counted photographed mentioned described painted followed ordered cleaned repaired collected measured sketched "
    "wrapped returned repainted inspected delivered polished weighed rented hid lost traded guarded"
)
OBJECTS = _list(
    "cinema ticket car bus train umbrella jacket camera book newspaper bicycle ladder kitchen window garden bridge "
    "market library river street clock lamp chair table basket bottle blanket suitcase letter map phone radio piano "
    "violin carpet mirror bucket hammer candle pillow wallet key scarf glove boot hat button ribbon shelf drawer "
    "curtain fence gate tower harbour station museum theatre bakery pharmacy wagon tent rope barrel anchor compass "
    "kettle teapot spoon saucer napkin mattress stove lantern cabinet ladle brush shovel wheelbarrow telescope helmet "
    "notebook envelope stamp painting statue fountain staircase chimney tractor canoe"
)
PLACES = _list(
    "near the office|behind the school|beside the church|opposite the park|under the arch|across the square|"
    "inside the mall|outside the town|above the shop|along the canal|around the corner|past the stadium|"
    "upstairs|downstairs|indoors|outdoors|nearby|abroad|in london|in paris|in chicago|in tokyo|in berlin",
    "|",
)
TIMES = _list(
    "yesterday|today|tonight|on monday|on tuesday|on wednesday|on thursday|on friday|on saturday|on sunday|last week|"
    "last month|last winter|last spring|this morning|this evening|before lunch|after breakfast|during january|"
    "in february|in march|in april|in august|in october|at noon|at midnight|twice|once|again|already",
    "|",
)
CONNECTIVES = _list("and but although while because since though yet whereas")


def _pick(rng: random.Random, items: Sequence[str]) -> str:
    """Draws one item by `rng.random`, the one stream that Python keeps the same on every version."""
    return items[int(rng.random() * len(items))]


def _maybe(rng: random.Random, items: Sequence[str], probability: float) -> list[str]:
    """Draws one item with the given probability, as a list of words that is otherwise empty."""
    return _pick(rng, items).split() if rng.random() < probability else []


def _opinion(rng: random.Random, positive: bool) -> tuple[list[str], list[int]]:
    """Says something favourable or not; returns the words and the places of the negator and the polarity word."""
    negator = _maybe(rng, NEGATORS, NEGATED)
    words = [*negator, *_maybe(rng, ADVERBS, 0.5), _pick(rng, GOOD if positive != bool(negator) else BAD)]
    return words, [0] * len(negator) + [len(words) - 1]


def _verdict(rng: random.Random, positive: bool) -> tuple[list[str], list[int]]:
    """Writes the clause that decides; returns its words and the positions that decide within it."""
    head = [_pick(rng, DETERMINERS), _pick(rng, PARTS), _pick(rng, COPULAS)]
    opinion, places = _opinion(rng, positive)
    return head + opinion, [len(head) + place for place in places]


def _distractor(rng: random.Random) -> list[str]:
    """Writes an opinion that does not count: on another thing, or another person's."""
    if rng.random() < 0.5:
        head = [_pick(rng, DETERMINERS), _pick(rng, THINGS), _pick(rng, COPULAS)]
    else:
        head = [_pick(rng, OWNERS), _pick(rng, PEOPLE), *_pick(rng, VIEWS).split()]
    return head + _opinion(rng, rng.random() < 0.5)[0]


def _neutral(rng: random.Random) -> list[str]:
    """Writes a clause without an opinion, at times with a negator."""
    subject = [_pick(rng, PRONOUNS), *_maybe(rng, NEGATORS[1:], 0.25), _pick(rng, DEEDS)]
    return [*subject, "the", _pick(rng, OBJECTS), *_maybe(rng, PLACES, 0.5), *_maybe(rng, TIMES, 0.5)]


def _review(rng: random.Random, positive: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Writes a whole review; returns its words and the positions that decide its label."""
    verdict, places = _verdict(rng, positive)
    others = [_distractor(rng) if kind == "d" else _neutral(rng) for kind in _pick(rng, OTHERS)]
    order = sorted((rng.random(), number) for number in range(len(others) + 1))
    words: list[str] = []
    rationale: tuple[int, ...] = ()
    for _, number in order:
        words += [_pick(rng, CONNECTIVES)] if words else []
        if number == len(others):
            rationale = tuple(len(words) + place for place in places)
        words += verdict if number == len(others) else others[number]
    return tuple(words), rationale


def _split(rng: random.Random, size: int, seen: set[tuple[str, ...]]) -> list[Example]:
    """Writes the reviews of one split, none of them in `seen`, to which they are added."""
    records: list[tuple[float, int, Example]] = []
    while len(records) < size:
        number = len(records)
        positive = number % 2 == 1
        words, rationale = _review(rng, positive)
        if words in seen:
            continue
        seen.add(words)
        wrong = number < round(NOISE * size)  # classes alternate, so both lose the same share
        record = Example(" ".join(words), LABEL_NAMES[positive != wrong], rationale=rationale)
        records.append((rng.random(), number, record))
    return [record for _, _, record in sorted(records)]


def generate(seed: int = 0) -> dict[str, list[Example]]:
    """Writes the data set; the same seed gives the same reviews on every platform and version.

    Args:
      seed: chooses the reviews and the wrong labels.

    Returns:
      2,400 examples under "train", 400 under "dev" and 400 under "test", labelled "negative" or "positive".

    >>> [len(examples) for examples in generate(0).values()]
    [2400, 400, 400]
    """
    rng = random.Random(seed)
    seen: set[tuple[str, ...]] = set()
    return {name: _split(rng, size, seen) for name, size in SIZES.items()}
