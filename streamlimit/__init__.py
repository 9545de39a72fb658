"""streamlimit: one account watches at most N streams at once."""

from importlib.metadata import version

from streamlimit.errors import InvalidInput, StoreOverloaded, StoreUnavailable, StreamlimitError
from streamlimit.results import (
    Admission,
    Check,
    EndedStream,
    Health,
    Lease,
    LimitReached,
    Reason,
    Recovering,
    Stream,
    StreamEnded,
    TooManyAdmissions,
    UnknownStream,
    UnknownUser,
    UserStreams,
)
from streamlimit.rules import Rules
from streamlimit.tracker import StreamTracker

__version__ = version("streamlimit")

__all__ = [
    "Admission",
    "Check",
    "EndedStream",
    "Health",
    "InvalidInput",
    "Lease",
    "LimitReached",
    "Reason",
    "Recovering",
    "Rules",
    "StoreOverloaded",
    "StoreUnavailable",
    "Stream",
    "StreamEnded",
    "StreamTracker",
    "StreamlimitError",
    "TooManyAdmissions",
    "UnknownStream",
    "UnknownUser",
    "UserStreams",
]
