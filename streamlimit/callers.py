"""Who is asking: the roles of callers, and why one is not let in."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from streamlimit.errors import StreamlimitError


class Role(StrEnum):
    """What a caller is, and so which operations it may call; `routes` has the table."""

    PLAYER = "player"
    """Acts for one user, by a token (JWT) that names it."""
    SERVICE = "service"
    """A back end, by an API key: acts for every user."""
    OPERATOR = "operator"
    """People and machines that run the service, by an API key."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has said who it is, and proved it."""

    role: Role
    name: str
    """For the log: which key it used."""
    user_id: str | None = None
    """Of a player: the only user for which it may act."""
    limit: int | None = None
    """Of a player: the user's limit as its token knows it."""

    def may_act_for(self, user_id: str) -> bool:
        """Whether it may ask about this user, and change what is the user's."""
        return self.role is not Role.PLAYER or self.user_id == user_id


Reason = Literal["missing", "invalid", "expired"]


class NotAuthenticated(StreamlimitError):
    """The caller has not proved who it is.

    Args:
        reason: For the count.
        message: For the caller. It says more than "not valid" only where the signature was right: else it would help
            whoever tries to make a token.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TooManyFailures(StreamlimitError):
    """The caller has sent what proves nothing again and again, and is not asked again for a while.

    Args:
        retry_after_ms: How long.
    """

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__("this key or token was wrong too often")
        self.retry_after_ms = retry_after_ms


class KeysUnavailable(StreamlimitError):
    """Whether a token is right cannot be told now: the keys that would tell are out of reach."""
