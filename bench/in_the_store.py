"""The parts that look into the store: how long scripts take, and how much memory streams take."""

from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench import streams
from bench.plan import SECRET, TTL_SECONDS
from bench.run import Run
from bench.stores import connect, engines, start_store
from streamlimit.keys import Keys
from streamlimit.scripts import ADMIT
from streamlimit.stream_id import Signer, mint_ref

COUNT: Final = """
if redis.call('EXISTS', unpack(KEYS)) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'ref', ARGV[2], 'sig', ARGV[3], 'started_at', ARGV[4], 'device_id', ARGV[5],
  'device_name', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
return 1
"""
"""The least that limits streams: count ten keys, set a hash, and let it expire."""

STEPS: Final = ("first", "second", "third", "refused")
"""What becomes of the admissions of a user, one after the other."""

_EPOCH: Final = "bench"
_AT_ONCE: Final = 100


def scripts(run: Run) -> None:
    """The server time of the admission script with ten seats, beside that of a script that only counts."""
    for engine in engines():
        with run.directory() as name, ExitStack() as stack:
            store = start_store(engine, run.cores.store, Path(name), stack)
            client = stack.enter_context(connect(store))
            client.script_load(ADMIT.source)
            count = client.script_load(COUNT)
            found: dict[str, list[float]] = {}
            for _ in range(run.plan.rounds):
                client.flushdb()
                client.hset(Keys().epochs[0], mapping={"id": _EPOCH, "since": 0, "recovering_until": 0})
                for number, step in enumerate(STEPS):
                    calls = [admission(user, number) for user in range(run.plan.script_users)]
                    found.setdefault(step, []).append(server_us(client, ADMIT.sha, calls))
                client.flushdb()
                calls = [counting(user) for user in range(run.plan.script_users)]
                found.setdefault("count", []).append(server_us(client, count, calls))
            for step, values in found.items():
                run.figures[f"{engine}_{step}_us"] = median(values)
            told = ", ".join(f"{step} {run.figures[f'{engine}_{step}_us']:.1f}" for step in found)
            run.tell(f"scripts on {engine}, microseconds: {told}")


def admission(user: int, number: int) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV of an admission, as the service sends them."""
    user_id = streams.user_id(user)
    ref = mint_ref(streams.LIMIT)
    rules = [TTL_SECONDS * 1000, TTL_SECONDS * 1000 // 3, "", streams.LIMIT, "", ""]
    device = [streams.device_id(user * len(STEPS) + number), streams.DEVICE_NAME, ""]
    # as in the script's header: … on_limit, take_over, device_id, device_name, content_id, request, enforce, dry_run
    args = [_EPOCH, ref, Signer([SECRET]).sign(user_id, ref), streams.LIMIT, *rules, *device, "", "1", "", ""]
    return Keys().all_of(user_id), args


def counting(user: int) -> tuple[list[str], list[Any]]:
    """KEYS and ARGV of COUNT."""
    keys, args = admission(user, 0)
    return keys[3:], [streams.LIMIT, args[1], args[2], 1_700_000_000_000, args[10], args[11], args[4]]


def server_us(client: Any, sha: str, calls: list[tuple[list[str], list[Any]]]) -> float:
    """Run a script again and again, and return what the server says that it took a call, in microseconds."""
    client.config_resetstat()
    for start in range(0, len(calls), _AT_ONCE):
        pipeline = client.pipeline(transaction=False)
        for keys, args in calls[start : start + _AT_ONCE]:
            pipeline.evalsha(sha, len(keys), *keys, *args)
        pipeline.execute()
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def memory(run: Run) -> None:
    """The memory of very many live streams: ref, signature, 16-byte device id, 14-byte device name, start."""
    for engine in engines():
        with run.directory() as name, ExitStack() as stack:
            store = start_store(engine, run.cores.store, Path(name), stack)
            with connect(store) as client:
                before = client.info("memory")["used_memory"]
                streams.fill(client, run.plan.many_streams)
            with connect(store) as client:
                used = client.info("memory")["used_memory"] - before
            run.figures[f"{engine}_stream_bytes"] = used / run.plan.many_streams
            run.figures["streams_stored"] = run.plan.many_streams
            run.tell(f"memory on {engine}: {used / run.plan.many_streams:.0f} bytes a stream")
