"""One process of racing clients, `python -m tests.racer PLAN`. It writes down what they did and were told.

PLAN is JSON. Each client is a thread with a connection of its own. It plays for all users at once, as the devices of
many households would, and does at random what players, back ends and operators do. Only the standard library, so that
many start fast.
"""

import json
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from random import Random
from typing import Any

from tests.history import Event, Operation, ref_of, write

PATIENCE_SECONDS = 20
DEVICES = 6
KEYS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What the clients of one process do."""

    name: str
    port: int
    users: list[str]
    log: str
    seed: str = ""
    clients: int = 3
    until: float = 0
    """Race until this moment of the monotonic clock, ms."""
    admissions: int = 0
    """Or, in a crowd, only ask for so many admissions, user after user."""
    ttl_ms: int = 3000
    pause_seconds: float = 0.1
    """At most so long a client waits between two calls."""


@dataclass(slots=True)
class Playing:
    """A stream that a client has."""

    user: str
    stream_id: str = ""
    due: float = 0
    """When its next heartbeat is sent, ms. Later than the TTL allows where its player falls silent."""


@dataclass(eq=False)
class Client:
    """One client, and what it remembers."""

    plan: Plan
    name: str
    random: Random
    events: list[Event] = field(default_factory=list)
    playing: list[Playing] = field(default_factory=list)
    over: deque[Playing] = field(default_factory=lambda: deque(maxlen=20))
    """Streams that ended, or that it lets die."""
    seen: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=20))
    """User and stream_ref of streams that answers spoke of."""
    asked: deque[tuple[str, dict[str, Any]]] = field(default_factory=lambda: deque(maxlen=20))
    """Admissions with a key that were made, or may have been."""

    def __post_init__(self) -> None:
        self._wild = False
        self._connection = HTTPConnection("127.0.0.1", self.plan.port, timeout=PATIENCE_SECONDS)

    def crowd(self) -> None:
        """Ask for admission, user after user."""
        for number in range(self.plan.admissions):
            self._call("admit", self.plan.users[number % len(self.plan.users)])

    def race(self) -> None:
        """Do something at random, again and again."""
        calm = [(40, self._admit), (12, self._repeat_admission), (6, self._beat_early), (6, self._beat_over)]
        calm += [(2, self._release), (4, self._release_again), (3, self._fall_silent), (4, self._trespass)]
        calm += [(8, self._list), (8, self._check), (8, self._get)]
        wild = [*calm, (6, self._terminate), (2, self._end_all), (6, self._set_limit)]
        # The first user leads a quiet life, with streams that last, and the others an ever wilder one.
        wildness = {
            user: 0.3 * (number / (len(self.plan.users) - 1)) ** 2 for number, user in enumerate(self.plan.users)
        }
        while _now() < self.plan.until:
            due = [one for one in self.playing if one.due <= _now()]
            user = self.random.choice(self.plan.users)
            self._wild = self.random.random() < wildness[user]
            if due:
                self._beat(due[0])
            else:
                weights, operations = zip(*(wild if self._wild else calm), strict=True)
                self.random.choices(operations, weights)[0](user)
            time.sleep(self.random.uniform(0, self.plan.pause_seconds))

    def _admit(self, user: str) -> None:
        arguments: dict[str, Any] = {}
        if self.random.random() < 0.4:
            # Others use the same one at the same time.
            arguments["key"] = f"{_now() // 1000:.0f}-{self.random.randrange(KEYS)}"
        if self.random.random() < (0.5 if self._wild else 0.05):
            arguments["device_id"] = f"tv-{self.random.randrange(DEVICES)}"
        if self._wild:
            named = [ref for owner, ref in self.seen if owner == user]
            if named and self.random.random() < 0.2:
                arguments["take_over"] = self.random.choice(named)
            if self.random.random() < 0.2:
                arguments["on_limit"] = "evict"
            if self.random.random() < 0.1:
                arguments["limit"] = self.random.randrange(6)
        self._admission(user, arguments)

    def _repeat_admission(self, _: str) -> None:
        if self.asked:
            self._admission(*self.random.choice([self.asked[-1], self.random.choice(self.asked)]))

    def _admission(self, user: str, arguments: dict[str, Any]) -> None:
        event, stream_id = self._call("admit", user, **arguments)
        if "key" in arguments and not event.refused:
            self.asked.append((user, arguments))
        if stream_id:
            playing = next((one for one in self.playing if ref_of(one.stream_id) == event.admitted), None)
            if playing is None:
                self.playing.append(playing := Playing(user))
            self._go_on(playing, event, stream_id)

    def _beat(self, playing: Playing) -> None:
        event, stream_id = self._call("heartbeat", playing.user, playing.stream_id)
        if stream_id:
            self._go_on(playing, event, stream_id)
        elif event.status == 410:
            self._stop(playing)

    def _go_on(self, playing: Playing, lease: Event, stream_id: str) -> None:
        """Send the next heartbeat as asked, or so late that it just arrives in time."""
        playing.stream_id = stream_id
        wait_ms = 1000 * float(lease.answer["heartbeat_seconds"])
        if self.random.random() < 0.3:
            wait_ms = self.plan.ttl_ms * self.random.uniform(0.5, 0.95)
        playing.due = _now() + wait_ms

    def _beat_early(self, _: str) -> None:
        if self.playing:
            self._beat(self.random.choice(self.playing))

    def _beat_over(self, _: str) -> None:
        if self.over:
            one = self.random.choice(self.over)
            self._call("heartbeat", one.user, one.stream_id)

    def _fall_silent(self, _: str) -> None:
        """Let a stream die, or go on with it when it may just have died."""
        if self.playing:
            playing = self.random.choice(self.playing)
            if self.random.random() < 0.5:
                self._stop(playing)
            else:
                playing.due = _now() + self.plan.ttl_ms * self.random.uniform(0.9, 1.3)

    def _release(self, _: str) -> None:
        if self.playing:
            playing = self.random.choice(self.playing)
            self._call("release", playing.user, playing.stream_id)
            self._stop(playing)

    def _release_again(self, _: str) -> None:
        if self.over:
            one = self.random.choice(self.over)
            self._call("release", one.user, one.stream_id)

    def _get(self, _: str) -> None:
        if self.playing or self.over:
            one = self.random.choice([*self.playing, *self.over])
            self._call("get", one.user, one.stream_id)

    def _trespass(self, user: str) -> None:
        """Do something to a stream under another user's name."""
        others = [one for one in self.playing if one.user != user]
        if others:
            operation: Operation = self.random.choice(["heartbeat", "release", "get", "terminate"])
            self._call(operation, user, self.random.choice(others).stream_id)

    def _list(self, user: str) -> None:
        self._call("list", user)

    def _check(self, user: str) -> None:
        self._call("check", user)

    def _terminate(self, user: str) -> None:
        named = [ref for owner, ref in self.seen if owner == user]
        if named:
            self._call("terminate", user, self.random.choice(named))

    def _end_all(self, user: str) -> None:
        self._call("terminate_all", user)

    def _set_limit(self, user: str) -> None:
        limit = self.random.choice([0, 1, 2, 3, 3, 4, 5])
        self._call("set_limit", user, limit=limit, end_excess=self.random.random() < 0.5)

    def _stop(self, playing: Playing) -> None:
        self.playing.remove(playing)
        self.over.append(playing)

    def _call(self, operation: Operation, user: str, stream_id: str = "", **arguments: Any) -> tuple[Event, str]:
        """Send a request and write down what came of it; return that and the stream id, which the log does not have."""
        path = f"/v1/users/{user}"
        body = {name: value for name, value in arguments.items() if name != "key"}
        headers = {"Idempotency-Key": arguments["key"]} if "key" in arguments else {}
        match operation:
            case "admit":
                method, path = "POST", f"{path}/streams"
            case "heartbeat":
                method, path = "POST", f"{path}/streams/{stream_id}/heartbeat"
            case "release" if self.random.random() < 0.8:
                method, path = "POST", f"{path}/streams/{stream_id}/release"
            case "release":
                method, path = "DELETE", f"{path}/streams/{stream_id}"
            case "terminate":
                method, path = "DELETE", f"{path}/streams/{'.'.join(stream_id.split('.')[:2])}"
            case "terminate_all":
                method, path = "DELETE", f"{path}/streams"
            case "set_limit":
                method = "PUT"
            case "list":
                method, path = "GET", f"{path}/streams"
            case "check":
                method, path = "GET", f"{path}/admission"
            case _:
                method, path = "GET", f"{path}/streams/{stream_id}"
        sent = _now()
        status, answer = self._send(method, path, json.dumps(body) if body else None, headers)
        new_id: str = answer.pop("stream_id", "")
        ref = ref_of(stream_id) if stream_id else ""
        event = Event(self.name, user, operation, sent, _now(), status, ref, arguments, answer)
        self.events.append(event)
        told = [*answer.get("streams", []), *([answer] if event.admitted else [])]
        self.seen.extend((user, one["stream_ref"]) for one in told)
        return event, new_id

    def _send(
        self, method: str, path: str, body: str | None, headers: dict[str, str]
    ) -> tuple[int | None, dict[str, Any]]:
        # Now and then a client goes away before it is answered. The quiet user's do not, so that all is known of it.
        goes_away = self._wild and self.random.random() < 0.03
        try:
            if self._connection.sock is None:
                self._connection.connect()
            self._connection.request(method, path, body, {"Content-Type": "application/json"} | headers)
            if goes_away:
                time.sleep(self.random.uniform(0, 0.003))
                self._connection.close()
                return None, {}
            with self._connection.getresponse() as response:
                text = response.read()
                return response.status, json.loads(text) if text else {}
        except (OSError, HTTPException):
            self._connection.close()
            return None, {}


def _now() -> float:
    return time.monotonic() * 1000


def main() -> None:
    """Run the clients and write their log."""
    plan = Plan(**json.loads(sys.argv[1]))
    names = [f"{plan.name}-{number}" for number in range(plan.clients)]
    clients = [Client(plan, name, Random(f"{plan.seed} {name}")) for name in names]
    with ThreadPoolExecutor(plan.clients) as threads:
        for done in [threads.submit(one.race if plan.until else one.crowd) for one in clients]:
            done.result()
    write((event for client in clients for event in client.events), Path(plan.log))


def command(plan: Plan) -> list[str]:
    """How to start the process."""
    return [sys.executable, "-m", "tests.racer", json.dumps(asdict(plan))]


if __name__ == "__main__":
    main()
