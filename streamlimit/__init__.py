"""streamlimit: one account watches at most N streams at once."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamlimit.errors import DamagedKey, InvalidInput, StoreOverloaded, StoreUnavailable, StreamlimitError
    from streamlimit.results import (
        Admission,
        Check,
        EndedBy,
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
    "DamagedKey",
    "EndedBy",
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


def __getattr__(name: str) -> object:
    """Load what is exported when it is first asked for, so that the command can heed a Ctrl-C before it loads that."""
    if name in __all__:
        for module in ("errors", "results", "rules", "tracker"):
            exported = vars(import_module(f"streamlimit.{module}"))
            if name in exported:
                globals()[name] = exported[name]
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
