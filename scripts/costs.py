"""What operations cost a store: its own figures (INFO), before and after many of them."""

import asyncio
import gc
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Final, NamedTuple, Self, TypeVar

import uvloop

from streamlimit import Lease, Rules, StreamTracker
from streamlimit.calls import Calls
from streamlimit.hash_slots import tags
from streamlimit.keys import Keys
from streamlimit.node import MAX_CLAIMS
from streamlimit.scripts import ADMIT, EPOCH, HEARTBEAT, RELEASE, RESUME, Call
from streamlimit.stream_id import Signer, StreamId, mint_ref

_Item = TypeVar("_Item")

LIMIT: Final = 3
SECRET: Final = "the streams of a simulation are of no use to anybody"  # noqa: S105 - so it need not be one
RULES: Final = Rules(limit=LIMIT, ttl_ms=600_000)
"""The longest TTL, so that nothing expires meanwhile."""

_EPOCH: Final = "0123456789abcdef"
"""As long as those of the service."""
_NEVER: Final = 2**52
"""Until when the scripts may be carried out."""
_TOGETHER: Final = 64
_PLAYERS: Final = 256
_SAMPLE: Final = 20_000
_FRESH_SECONDS: Final = 1.1
"""So long after the last one a heartbeat writes again."""


class SimulationError(Exception):
    """The message says what went wrong."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What the server has used so far."""

    cpu_us: float
    memory: float
    log_bytes: float | None
    """None without an append-only file."""
    log_rewrites: int
    net_bytes: float

    @classmethod
    def read(cls, client: Any) -> Self:
        """Ask it."""
        info = client.info()
        # Of the thread that runs scripts: there is one, and its core is the bound.
        cpu = sum(info.get(f"used_cpu_{kind}_main_thread", info[f"used_cpu_{kind}"]) for kind in ("user", "sys"))
        net = info["total_net_input_bytes"] + info["total_net_output_bytes"]
        rewrites = info.get("aof_rewrites", 0) + info.get("aof_rewrite_in_progress", 0)
        return cls(cpu * 1e6, info["used_memory"], info.get("aof_current_size"), rewrites, net)


class Stream(NamedTuple):
    """A live one."""

    user: str
    id: StreamId


def chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """So many at a time."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


class Simulation:
    """Fills a store with live streams and measures what each step costs.

    Args:
        client: Of an empty store that nobody else uses.
        count: Live streams, three of each user.
    """

    def __init__(self, client: Any, count: int) -> None:
        self._client = client
        self._users = [f"user-{number:07d}" for number in range(count // LIMIT)]
        self._signer = Signer([SECRET])
        self._keys = Keys()
        self._calls = Calls(self._keys, self._signer, RULES)
        self._streams: list[Stream] = []
        self.costs: dict[str, float] = {}

    def run(self) -> None:
        """Measure everything but the app.

        Raises:
            SimulationError: The store did not do what it should.
            RedisError: It failed.
        """
        for script in (ADMIT, EPOCH, HEARTBEAT, RELEASE, RESUME):
            self._client.script_load(script.source)
        epochs = Keys(tags=tags()).epochs
        meetings = (Call(EPOCH, [key], ["", _EPOCH, RULES.ttl_ms, ""]) for key in epochs)
        self.costs["epochs_bytes"] = self._memory_of(self._measure("epoch", meetings, _EPOCH))
        memory = 0.0
        for name in ("first", "second", "third"):
            memory += self._memory_of(self._measure(name, self._admissions(len(self._users)), "admitted"))
        self.costs["stream_bytes"] = memory / len(self._streams)
        self._measure("refused", self._admissions(_SAMPLE), "refused")

        random.shuffle(self._streams)
        sample = self._streams[:_SAMPLE]
        self._measure("beat", (self._heartbeat(group) for group in chunks(self._streams, MAX_CLAIMS)), together=4)
        self._measure("own_call", (self._heartbeat([one]) for one in sample), together=MAX_CLAIMS)
        self._measure("alone", (self._heartbeat([one]) for one in sample), together=1)

        lost = [stream for stream in sample if stream.id.seat == 1]
        for stream in lost:
            self._client.delete(self._keys.stream(stream.user, stream.id.seat))
        self._measure("resume", (self._in_epoch(self._calls.resume(*stream)) for stream in lost), "live")
        ended = [stream for stream in sample if stream.id.seat == LIMIT]
        change = self._measure("release", (self._calls.release(*stream) for stream in ended), 1)
        self.costs["ended_bytes"] = self.costs["stream_bytes"] + self._memory_of(change) / len(ended)
        self._streams = [stream for stream in self._streams if stream.id.seat != LIMIT]

    def run_app(self, url: str, seconds: float) -> None:
        """Measure how many heartbeats a second of this process's CPU time carries, without HTTP."""
        time.sleep(_FRESH_SECONDS)
        # The garbage collector would look at all these streams again and again. No process of the service has them.
        gc.collect()
        gc.freeze()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self.costs["worker_beats"] = runner.run(self._beats_a_second(url, seconds))

    def clear(self) -> None:
        """Delete all that was written."""
        names = [name for user in self._users for name in self._keys.all_of(user)]
        for some in chunks([*names, *Keys(tags=tags()).epochs], 1000):
            self._client.unlink(*some)

    def _admissions(self, count: int) -> Iterator[Call]:
        for user in self._users[:count]:
            ref = mint_ref(LIMIT)
            device = f"device-{random.randrange(10**9):09d}"
            call = self._calls.admission(
                user,
                ref=ref,
                sig=self._signer.sign(user, ref),
                ref_limit=LIMIT,
                device_id=device,
                device_name="Living-room TV",
            )
            yield self._in_epoch(call)

    def _heartbeat(self, streams: Sequence[Stream]) -> Call:
        beats = [self._calls.claim(*stream) for stream in streams]
        return Call(
            HEARTBEAT, [beat.key for beat in beats], [RULES.ttl_ms, *(word for beat in beats for word in beat[2:])]
        )

    def _in_epoch(self, call: Call) -> Call:
        return Call(call.script, call.keys, [_EPOCH, *call.args, _NEVER])

    def _measure(
        self, name: str, calls: Iterable[Call], expected: str | int | None = None, *, together: int = _TOGETHER
    ) -> tuple[Counters, Counters]:
        """Run calls, so many sent together; note what one costs, or what a heartbeat in them does."""
        if expected is None:
            time.sleep(_FRESH_SECONDS)
        before, done = Counters.read(self._client), 0
        for some in chunks(calls, together):
            pipeline = self._client.pipeline(transaction=False)
            for call in some:
                pipeline.evalsha(call.script.sha, len(call.keys), *call.keys, *call.args)
            for call, reply in zip(some, pipeline.execute(), strict=True):
                done += self._checked(call, reply, expected)
        after = Counters.read(self._client)
        self.costs[f"{name}_us"] = (after.cpu_us - before.cpu_us) / done
        self.costs[f"{name}_net_bytes"] = (after.net_bytes - before.net_bytes) / done
        if before.log_bytes is not None and after.log_bytes is not None and before.log_rewrites == after.log_rewrites:
            self.costs[f"{name}_log_bytes"] = (after.log_bytes - before.log_bytes) / done
        return before, after

    def _checked(self, call: Call, reply: Any, expected: str | int | None) -> int:
        """How many operations it was. Remembers what was admitted."""
        if expected is None:
            if not all(reply):
                raise SimulationError("a stream ended in the middle of the measurement")
            return len(reply)
        answer = reply[0] if isinstance(reply, list) else reply
        if answer != expected:
            raise SimulationError(f"{call.script.name}.lua answered {answer}, not {expected}")
        if answer == "admitted":
            seat, _, ref = reply[4][:3]
            user = call.keys[0].partition("{")[2].removesuffix("}")
            self._streams.append(Stream(user, StreamId(seat, ref, reply[6])))
        return 1

    @staticmethod
    def _memory_of(change: tuple[Counters, Counters]) -> float:
        before, after = change
        return after.memory - before.memory

    async def _beats_a_second(self, url: str, seconds: float) -> float:
        done = 0
        streams = cycle(self._streams)
        # A disk that is behind after the filling must not end the measurement.
        async with StreamTracker.from_url(url, [SECRET], RULES, budget_seconds=10) as tracker:
            end = time.monotonic() + seconds

            async def play() -> None:
                nonlocal done
                while time.monotonic() < end:
                    user, stream = next(streams)
                    if not isinstance(await tracker.heartbeat(user, str(stream)), Lease):
                        raise SimulationError("a stream ended in the middle of the measurement")
                    done += 1

            used = time.process_time()
            await asyncio.gather(*(play() for _ in range(_PLAYERS)))
            return done / (time.process_time() - used)
