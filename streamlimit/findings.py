"""What an examination of a store found: one finding a question, each with what to do about it."""

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "warning", "problem", "skipped"]

_BY_GRAVITY: Final[tuple[State, ...]] = ("problem", "warning", "ok", "skipped")


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question about the store, or about one of its servers."""

    check: str
    """Which question; where it is about one setting of the server, by the setting's name."""
    state: State
    """ok; warning: it may hurt later; problem: do not trust this store; skipped: it could not be found out."""
    found: str
    advice: str = ""
    """What to do; where it was skipped, what to look at by hand."""
    node: str = ""
    """Which server, as HOST:PORT; empty where it is about all of them."""


def worst(findings: list[Finding]) -> State:
    """The state of the whole. What could not be found out makes nothing worse."""
    states = {finding.state for finding in findings}
    return next((state for state in _BY_GRAVITY if state in states), "skipped")
