"""Every operation of a tracker, on a user with one stream."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

from streamlimit import StreamTracker

Operation = Callable[[StreamTracker, str, str], Coroutine[Any, Any, Any]]


async def _beat_twice(tracker: StreamTracker, user_id: str, stream_id: str) -> object:
    first, second = await tracker.heartbeat_many([(user_id, stream_id)] * 2)
    for answer in (first, second):
        if isinstance(answer, Exception):
            raise answer
    return first


OPERATIONS: Final[dict[str, Operation]] = {
    "admit": lambda tracker, user_id, _: tracker.admit(user_id),
    "check": lambda tracker, user_id, _: tracker.check(user_id),
    "heartbeat": lambda tracker, user_id, stream_id: tracker.heartbeat(user_id, stream_id),
    "heartbeat_many": _beat_twice,
    "get": lambda tracker, user_id, stream_id: tracker.get(user_id, stream_id),
    "list": lambda tracker, user_id, _: tracker.list(user_id),
    "user_limit": lambda tracker, user_id, _: tracker.user_limit(user_id),
    "set_user_limit": lambda tracker, user_id, _: tracker.set_user_limit(user_id, 2),
    "delete_user": lambda tracker, user_id, _: tracker.delete_user(user_id),
    "release": lambda tracker, user_id, stream_id: tracker.release(user_id, stream_id),
    "terminate": lambda tracker, user_id, stream_id: tracker.terminate(user_id, stream_id.rpartition(".")[0]),
    "terminate_all": lambda tracker, user_id, _: tracker.terminate_all(user_id),
}
"""All but `health`, which is about no user."""

WRITES: Final = {"admit", "set_user_limit", "delete_user", "release", "terminate", "terminate_all"}
"""The others may write nothing. (A heartbeat soon after another one is such.)"""
