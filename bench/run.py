"""One run of the whole, or of parts of it: what is chosen, and what has been found."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from bench import servers
from bench.load import paced, wrk
from bench.plan import CONNECTIONS, Cores, Plan
from bench.processes import Process
from bench.servers import Server
from bench.targets import LATENCY, Found
from bench.turns import Contender, in_turn
from bench.verdicts import Summary, Turn, not_at_peak, not_kept, summarise


@dataclass
class Run:
    """Options in, figures out."""

    plan: Plan
    cores: Cores
    parts: frozenset[str]
    servers: tuple[Server, ...]
    turns: dict[str, dict[str, list[Turn]]] = field(default_factory=dict)
    """By load, then by server."""
    figures: dict[str, float] = field(default_factory=dict)
    """What is no load of a server: medians, by name."""

    def tell(self, line: str) -> None:
        """Tell people how it goes."""
        print(line, flush=True)

    def directory(self) -> AbstractContextManager[str]:
        """One for the time of a part."""
        return TemporaryDirectory(prefix="streamlimit-bench-")

    def answering(self, kind: str) -> list[Server]:
        """Those chosen that answer this kind of requests."""
        return [server for server in self.servers if kind in server.answers]

    def start(self, chosen: list[Server], store: Process, directory: Path, stack: ExitStack) -> dict[str, Process]:
        """Start servers on the core of the server, all at once, and wait for them."""
        cores = (self.cores.server,)
        started = {one.name: servers.start(one, store.port, cores, directory, stack) for one in chosen}
        for process in started.values():
            process.wait()
        return started

    def measure(
        self, load: str, contenders: list[Contender], prepare: Callable[[Contender], None] = lambda _: None
    ) -> None:
        """Give all of them their turns under a load."""
        self.tell(f"{load}: {', '.join(contender.name for contender in contenders)}")
        self.turns[load] = in_turn(contenders, self.cores, self.plan, prepare, self.tell)

    def full_load(
        self,
        name: str,
        server: Process,
        store: Process,
        requests: Path,
        *,
        connections: int = CONNECTIONS,
        cores: int = 1,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Contender:
        """A server under as much load as it answers."""
        warm, load = (
            wrk(server.port, requests, seconds, connections, headers=headers)
            for seconds in (self.plan.warm_seconds, self.plan.seconds)
        )
        return Contender(name=name, server=server, store=store, warm=warm, load=load, cores=cores)

    def half_load(self, peak: Contender, requests: Path) -> Contender:
        """The same server at half of the peak that it showed."""
        rate = summarise(self.turns[servers.HEARTBEATS][peak.name]).rate.median / 2
        warm, load = (
            paced(peak.server.port, requests, seconds, rate) for seconds in (self.plan.warm_seconds, self.plan.seconds)
        )
        return Contender(name=peak.name, server=peak.server, store=peak.store, warm=warm, load=load)

    def summaries(self, load: str) -> dict[str, Summary]:
        """What came of a load, by server."""
        judge = not_kept if load == LATENCY else not_at_peak
        return {name: summarise(turns, judge) for name, turns in self.turns.get(load, {}).items()}

    def found(self) -> Found:
        """All of it, summed up."""
        return Found({load: self.summaries(load) for load in self.turns}, self.figures, len(self.cores.all))
