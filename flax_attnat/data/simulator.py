"""The data sets `simulated1` to `simulated3`: stories and questions like those of the bAbI tasks 1 to 3.

Four persons walk between six locations; in the tasks 2 and 3 they also take and drop three things. At first everybody
and everything is somewhere, which no sentence tells. At each step one person moves to another location, takes a thing
that lies there, or drops one; every kind of deed that is possible to a person is as likely as every other.
After every second sentence there may be a question, until there are five:

    task 1    "Where is Mary"                             she has moved
    task 2    "Where is the milk"                         dropped by somebody who had moved, or carried on since taken
    task 3    "Where was the milk before the office"      carried through two locations or more since last taken

The supporting sentences are those of the official files: the last move of the person; the last taking or dropping of
the thing and the move that brought it, or its last holder, there; the same with the move to the office and the one
before it. Words, forms of sentences and lengths of stories are those of the official files too.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from flax_attnat.data.source import Example
from flax_attnat.data.stories import LABEL_NAMES, Question, example

SIZES = {"train": 10_000, "test": 1_000}
PERSONS = ("Daniel", "John", "Mary", "Sandra")
THINGS = ("apple", "football", "milk")
MOVES = ("moved to", "went to", "went back to", "journeyed to", "travelled to")
TAKES = ("got", "took", "grabbed", "picked up")
DROPS = ("dropped", "left", "discarded", "put down")
QUESTIONS = 5  # in a story
STEPS = 2  # sentences before a question may come

# Fitted: with these a story has 10, 22 and 71 sentences on average, the official ones 10, 22 and 74.
ASKED = {1: 1.0, 2: 0.75, 3: 0.35}  # probability of a question where one is possible
TAKEN_THERE = {1: 0.0, 2: 1.0, 3: 0.2}  # probability that "there" ends a sentence of taking
DROPPED_THERE = 0.2
LATEST = 0.8  # probability that task 3 asks about the latest move

T = TypeVar("T")


@dataclasses.dataclass
class _World:
    """Where everybody and everything is, and which sentences say so, by their place in the story.

    Attributes:
      sentences: the story so far.
      where: location of every person and of every thing that nobody holds.
      holder: who holds a thing.
      moved: last move of a person.
      handled: last taking or dropping of a thing.
      dropped: last move of the person who dropped a thing, before dropping it.
      carried: moves, with their locations, on which a thing was carried since it was last taken.
    """

    sentences: list[str]
    where: dict[str, str]
    holder: dict[str, str] = dataclasses.field(default_factory=dict)
    moved: dict[str, int] = dataclasses.field(default_factory=dict)
    handled: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    carried: dict[str, list[tuple[int, str]]] = dataclasses.field(default_factory=dict)


def generate(task: int, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, list[Example]]:
    """Writes the data set; the same seed gives the same stories on every platform and version.

    Args:
      task: 1, 2 or 3.
      seed: chooses the stories.
      sizes: questions of each split; 10,000 under "train" and 1,000 under "test" unless given.

    >>> generate(1, sizes={"train": 1})["train"][0].query.split()[:2]
    ['Where', 'is']
    """
    rng = random.Random(seed)
    splits: dict[str, list[Example]] = {}
    for name, size in (SIZES if sizes is None else sizes).items():
        questions: list[Question] = []
        while len(questions) < size:
            questions += _story(rng, task)
        splits[name] = [example(question) for question in questions[:size]]
    return splits


def _pick(rng: random.Random, items: Sequence[T]) -> T:
    """Draws one item by `rng.random`, the one stream that Python keeps the same on every version."""
    return items[int(rng.random() * len(items))]


def _story(rng: random.Random, task: int) -> list[Question]:
    """The questions of one story."""
    world = _World([], {name: _pick(rng, LABEL_NAMES) for name in (*PERSONS, *(THINGS if task > 1 else ()))})
    ask = {1: _where_is_person, 2: _where_is_thing, 3: _where_was_thing}[task]
    questions: list[Question] = []
    while len(questions) < QUESTIONS:
        for _ in range(STEPS):
            _step(rng, task, world)
        possible = ask(rng, world)
        if possible and rng.random() < ASKED[task]:
            questions.append(_pick(rng, possible))
    return questions


def _step(rng: random.Random, task: int, world: _World) -> None:
    """One person does one thing."""
    lying = {person: [t for t in THINGS if _lies(world, t, world.where[person])] for person in PERSONS}
    held = {person: [t for t in THINGS if world.holder.get(t) == person] for person in PERSONS}
    possible = [(person, "move") for person in PERSONS]
    possible += [(person, "take") for person in PERSONS if lying[person]]
    possible += [(person, "drop") for person in PERSONS if held[person]]
    person, deed = _pick(rng, possible)
    if deed == "move":
        _move(rng, world, person)
    elif deed == "take":
        _take(rng, world, person, _pick(rng, lying[person]), TAKEN_THERE[task])
    else:
        _drop(rng, world, person, _pick(rng, held[person]))


def _lies(world: _World, thing: str, place: str) -> bool:
    """Whether the thing lies at the location."""
    return thing not in world.holder and world.where.get(thing) == place


def _move(rng: random.Random, world: _World, person: str) -> None:
    """The person goes to another location, with all that they hold."""
    place = _pick(rng, [name for name in LABEL_NAMES if name != world.where[person]])
    world.where[person], world.moved[person] = place, len(world.sentences)
    for thing, holder in world.holder.items():
        if holder == person:
            world.carried[thing].append((len(world.sentences), place))
    world.sentences.append(f"{person} {_pick(rng, MOVES)} the {place}")


def _take(rng: random.Random, world: _World, person: str, thing: str, there: float) -> None:
    """The person takes a thing."""
    world.holder[thing], world.handled[thing], world.carried[thing] = person, len(world.sentences), []
    world.sentences.append(f"{person} {_pick(rng, TAKES)} the {thing}{_there(rng, there)}")


def _drop(rng: random.Random, world: _World, person: str, thing: str) -> None:
    """The person drops a thing."""
    del world.holder[thing]
    world.where[thing], world.handled[thing] = world.where[person], len(world.sentences)
    world.dropped.pop(thing, None)
    if person in world.moved:
        world.dropped[thing] = world.moved[person]
    world.sentences.append(f"{person} {_pick(rng, DROPS)} the {thing}{_there(rng, DROPPED_THERE)}")


def _there(rng: random.Random, probability: float) -> str:
    """How a sentence ends."""
    return " there" if rng.random() < probability else ""


def _where_is_person(rng: random.Random, world: _World) -> list[Question]:
    """What task 1 can ask: one question for each person who has moved."""
    told = tuple(world.sentences)
    return [
        Question(told, f"Where is {person}", world.where[person], (world.moved[person],))
        for person in PERSONS
        if person in world.moved
    ]


def _where_is_thing(rng: random.Random, world: _World) -> list[Question]:
    """What task 2 can ask: one question for each thing whose location follows from two sentences."""
    found = []
    for thing in world.handled:
        place, move = world.where[thing], world.dropped.get(thing)
        if thing in world.holder:
            place, move = world.where[world.holder[thing]], None
            if world.carried[thing]:
                move = world.carried[thing][-1][0]
        if move is not None:
            support = (world.handled[thing], move)
            found.append(Question(tuple(world.sentences), f"Where is the {thing}", place, support))
    return found


def _where_was_thing(rng: random.Random, world: _World) -> list[Question]:
    """What task 3 can ask: one question for each thing that was carried through two locations since it was taken."""
    found = []
    for thing, moves in world.carried.items():
        last = {place: number for number, (_, place) in enumerate(moves)}  # "before" is said of the last time there
        numbers = [number for number in last.values() if number > 0]
        if numbers:
            number = max(numbers) if rng.random() < LATEST else _pick(rng, numbers)
            (earlier, answer), (later, place) = moves[number - 1 : number + 1]
            text = f"Where was the {thing} before the {place}"
            support = (world.handled[thing], later, earlier)
            found.append(Question(tuple(world.sentences), text, answer, support))
    return found
