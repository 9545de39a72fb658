"""What of a server will hurt later."""

from collections.abc import Iterator


def warnings(info: str) -> Iterator[str]:
    """Read what a server tells of itself, and say what an operator should change.

    Args:
        info: The reply to INFO, or its sections memory and persistence.
    """
    lines = (line.partition(":") for line in info.splitlines())
    told = {name: value for name, _, value in lines}
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield f"maxmemory-policy is {policy}: short of memory, the store drops live streams; set it to noeviction"
    if 0 < int(told.get("maxmemory", 0)) <= int(told.get("used_memory", 0)):
        yield "the store's memory is full: streams go on, but new ones are refused; raise maxmemory"
    if not int(told.get("aof_enabled", 1)):
        yield (
            "there is no append-only file: a crash loses the users' limits, and where there are snapshots it goes "
            "back to the last one, so that streams end; set appendonly to yes"
        )
