"""Every sequence of operations in small worlds: the model foretells each reply and the whole store, the scripts obey.

A sequence is not run from its beginning. The keys are all that the scripts know, and after each operation everything in
them is compared with the model; so a state is written into the store, the next operation runs on it, and the store is
read again. Sequences that lead to the same state go on as one. Thus each operation is run once in each state, and
stands for all the sequences that pass there.

PROVE_DEEPER=N makes the sequences of each world N operations longer; one more takes about ten times as long.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import Any, Final, NamedTuple

import pytest
from redis import Redis

from streamlimit import Rules
from tests.figures import report
from tests.model import Wish
from tests.servers import RedisServer
from tests.small_world import SCRIPTS, STEP_MS, TICK_MS, Call, Moment, Player, rules

pytestmark = pytest.mark.slow

DEEPER: Final = int(os.environ.get("PROVE_DEEPER", "0"))
BATCH: Final = 100

Operations = dict[str, Callable[[Moment], None]]

PLAYERS: Final = {
    "a": Player(),
    "b": Player(),
    "c": Player(),
    "tv": Player(Wish(device="tv")),
    "tv again": Player(Wish(device="tv")),
    "thief": Player(takes_over="a"),
    "tv thief": Player(Wish(device="tv"), takes_over="a"),
    "pusher": Player(Wish(evict=True)),
    "tv pusher": Player(Wish(evict=True, device="tv")),
    "k": Player(Wish(key="k")),
    "k again": Player(Wish(key="k")),
    "trusted": Player(Wish(limit=1)),
    "q": Player(process="q"),
    "bob": Player(user="bob"),
    "bob's tv": Player(Wish(device="tv", key="k"), user="bob"),
    "bob as thief": Player(takes_over="a", user="bob"),
}


class State(NamedTuple):
    saved: bytes
    path: tuple[str, ...]
    """The operations that led there, for who has to find out why."""


@dataclass(frozen=True)
class World:
    """Rules and operations. Each sequence is one of the beginnings, and after it `depth` operations in any order."""

    depth: int
    rules: Rules
    operations: Operations
    beginnings: tuple[tuple[str, ...], ...]
    users: tuple[str, ...] = ("alice",)
    tick_ms: int = TICK_MS
    """What passes before each operation. Without it streams may be equally old."""

    def moment(self, saved: bytes = b"") -> Moment:
        players = {name: player for name, player in PLAYERS.items() if player.user in self.users}
        return Moment(self.rules, players, saved)


def does(operation: Callable[[Moment, str], None], *names: str) -> Operations:
    return {f"{name} {operation.__name__}": partial(_do, operation, name) for name in names}


def _do(operation: Callable[[Moment, str], None], name: str, moment: Moment) -> None:
    operation(moment, name)


def plays(*names: str) -> Operations:
    return does(Moment.asks, *names) | does(Moment.beats, *names) | does(Moment.releases, *names)


def limits(*limits: int, end_excess: bool = False, user: str = "alice") -> Operations:
    word = "is cut to" if end_excess else "gets limit"
    return {
        f"{user} {word} {limit}": partial(Moment.gets_limit, user=user, limit=limit, end_excess=end_excess)
        for limit in limits
    }


LOOKS: Final[Operations] = {"all look": Moment.all_look}
UNANSWERED: Final[Operations] = {
    "alice is cleared, unanswered": partial(Moment.is_cleared, user="alice", answered=False),
    "alice is cut to 1, unanswered": partial(Moment.gets_limit, user="alice", limit=1, end_excess=True, answered=False),
    "it is tried again": Moment.is_tried_again,
}
CLEARED: Final[Operations] = {"alice is cleared": partial(Moment.is_cleared, user="alice")}
NO_RECORD: Final[Operations] = {"alice loses her record": partial(Moment.loses_record, user="alice")}
TIME: Final[Operations] = {f"{steps * 100} s pass": partial(Moment.waits, ms=steps * STEP_MS) for steps in (2, 5)}
OTHERS_END: Final[Operations] = {"many of alice's others end": partial(Moment.many_others_end, user="alice")}
LOSS: Final[Operations] = {
    "the store is lost": Moment.store_is_lost,
    "q restarts": partial(Moment.restarts, process="q"),
    "p had an outage": partial(Moment.meets, process="p", outage=True),
}

WORLDS: Final = {
    "devices and keys": World(
        3,
        rules(limit=2, max_limit=3),
        plays("a", "tv", "tv again", "k", "k again")
        | does(Moment.asks, "thief", "tv thief")
        | does(Moment.gives_up, "a", "k")
        | does(Moment.is_terminated, "a", "tv")
        | limits(1)
        | CLEARED
        | LOOKS,
        ((), ("a asks", "tv asks"), ("k asks", "tv asks")),
    ),
    "lost answers": World(
        3,
        rules(limit=2, max_limit=3),
        plays("a", "tv")
        | does(Moment.asks, "b", "tv again", "thief", "pusher", "tv pusher", "k", "k again")
        | UNANSWERED
        | limits(1, 3)
        | CLEARED
        | LOOKS,
        ((), ("a asks", "tv asks"), ("alice gets limit 3", "a asks", "tv asks", "b asks", "alice gets limit 1")),
    ),
    "lowered limits": World(
        3,
        rules(limit=3, max_limit=4),
        plays("a", "b", "tv")
        | does(Moment.asks, "c", "tv again", "thief", "pusher", "tv pusher", "trusted")
        | limits(0, 1, 2, 3)
        | limits(0, 1, 2, end_excess=True)
        | NO_RECORD
        | LOOKS,
        ((), ("a asks", "b asks", "tv asks")),
    ),
    "time": World(
        3,
        rules(limit=2, max_limit=3),
        plays("a", "b", "tv")
        | does(Moment.asks, "tv again", "thief", "pusher")
        | does(Moment.falls_silent, "a", "b", "tv")
        | limits(1, end_excess=True)
        | TIME
        | LOOKS,
        ((), ("a asks", "b asks"), ("a asks", "b asks", "200 s pass", "a beats")),
        tick_ms=0,
    ),
    "loss": World(
        3,
        rules(limit=2, max_limit=3),
        plays("a", "tv", "q")
        | does(Moment.asks, "tv again", "thief", "pusher")
        | does(Moment.is_lost, "a", "q")
        | limits(0, 1)
        | LOSS
        | TIME
        | LOOKS,
        ((), ("a asks", "q asks"), ("a asks", "tv asks", "the store is lost")),
    ),
    "full record of ends": World(
        3,
        rules(limit=2, max_limit=2),
        plays("a", "b")
        | does(Moment.asks, "tv", "tv again")
        | does(Moment.is_lost, "a")
        | OTHERS_END
        | CLEARED
        | LOSS
        | LOOKS,
        ((), ("a asks", "a releases", "many of alice's others end")),
    ),
    "shadow mode": World(
        3,
        rules(limit=1, max_limit=3, enforce=False),
        plays("a", "tv")
        | does(Moment.asks, "b", "c", "tv again", "thief", "pusher", "tv pusher")
        | does(Moment.is_lost, "a", "tv")
        | limits(0, 2)
        | LOSS
        | TIME
        | LOOKS,
        ((), ("a asks", "b asks", "tv asks")),
    ),
    "known users only": World(
        3,
        rules(limit=2, max_limit=2, unknown_users="reject"),
        plays("a", "tv")
        | does(Moment.asks, "b", "tv again", "trusted", "pusher")
        | limits(0, 1, 2)
        | NO_RECORD
        | LOSS
        | LOOKS,
        ((), ("alice gets limit 2", "a asks", "tv asks")),
    ),
    "two users": World(
        3,
        rules(limit=1, max_limit=2),
        plays("a", "tv", "bob", "bob's tv")
        | does(Moment.asks, "bob as thief", "k", "pusher")
        | limits(1, 2, user="bob")
        | limits(0, end_excess=True)
        | CLEARED
        | LOSS
        | LOOKS,
        ((), ("a asks", "bob asks", "the store is lost")),
        users=("alice", "bob"),
    ),
}


@pytest.fixture
def store(valkey_server: RedisServer) -> Iterator[Redis]:
    with Redis(port=valkey_server.port, decode_responses=True) as client:
        client.flushall()
        for script in SCRIPTS:
            client.script_load(script.source)
        yield client


@pytest.mark.parametrize("name", WORLDS)
def test_the_scripts_do_what_the_model_says(name: str, store: Redis) -> None:
    world, depth, figures = WORLDS[name], WORLDS[name].depth + DEEPER, Counter[str]()
    started = time.monotonic()
    level = []
    for beginning in world.beginnings:
        states = [State(world.moment().saved(), ())]
        for operation in beginning:
            states = [state for state, _ in successors(store, world, states, [operation], figures)]
        level += states
    seen: set[object] = set()
    for _ in range(depth):
        following = []
        for state, sameness in successors(store, world, level, world.operations, figures):
            if sameness not in seen:
                seen.add(sameness)
                following.append(state)
        level = following
    sequences = len(world.beginnings) * len(world.operations) ** depth
    seconds = round(time.monotonic() - started, 1)
    report("exhaustive", world=name, depth=depth, sequences=sequences, states=len(seen), seconds=seconds, **figures)


def successors(
    store: Redis, world: World, states: Iterable[State], operations: Iterable[str], figures: Counter[str]
) -> Iterator[tuple[State, object]]:
    """Run each operation in each state, compare, and yield the states after it."""
    steps = product(states, operations)
    while batch := list(islice(steps, BATCH)):
        moments = []
        for state, operation in batch:
            moment = world.moment(state.saved)
            moment.waits(world.tick_ms)
            world.operations[operation](moment)
            moment.read()
            moments.append((moment, (*state.path, operation)))
        replies = iter(run(store, [call for moment, _ in moments for call in moment.calls]))
        for moment, path in moments:
            for call in moment.calls:
                assert call.read(next(replies)) == call.foretold, " / ".join(path)
            figures.update(steps=1, calls=len(moment.calls))
            yield State(moment.saved(), path), moment.sameness()


def run(store: Redis, calls: Iterable[Call]) -> list[Any]:
    now = round(time.time() * 1000)
    with store.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.evalsha(call.sha, len(call.keys), *call.keys, *call.args_at(now))
        replies: list[Any] = pipeline.execute()
    return replies
