"""URLs that may hold a password or token: reading them, and showing them, without letting it out."""

from typing import Final
from urllib.parse import SplitResult, urlsplit

_ENCODE: Final = "in a password write # as %23, / as %2F, ? as %3F, @ as %40"


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ValueError: It has none; the message shows nothing of it, which urllib's own would.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"is not a URL; {_ENCODE}, [ as %5B") from None
    # Such as redis://user:12/34@host, whose host seems to be user, and whose port and path are the password.
    if "@" in f"{parts.path}?{parts.query}#{parts.fragment}":
        raise ValueError(f"has an @ behind the host; {_ENCODE}")
    return parts


def port_of(parts: SplitResult) -> int | None:
    """Return the port in a URL, if there is one.

    Raises:
        ValueError: It is not a number; the message does not show it, since it may be a piece of the password.
    """
    try:
        return parts.port
    except ValueError:
        raise ValueError(f"the port must be a number; {_ENCODE}") from None


def origin_of(url: str) -> str:
    """Return the scheme, host and port of a URL: each of its other parts may be or hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
