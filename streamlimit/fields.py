"""What the values that callers send may look like, checked before any of them becomes part of a key or is stored."""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from streamlimit.errors import InvalidInput

MAX_FIELD_BYTES: Final = 64
"""Longer values would make Redis give up the compact encoding of a small hash, which doubles its memory."""

MAX_SEATS: Final = 64
"""As many as `ended:{USER}` remembers, so that no end of a stream is forgotten when all are ended at once."""

MAX_USER_ID: Final = 128
MAX_IDEMPOTENCY_KEY: Final = 255

USER_ID_PATTERN: Final = rf"(?!\.{{1,2}}$)[A-Za-z0-9._~@|:+=-]{{1,{MAX_USER_ID}}}"
KEY_PREFIX_PATTERN: Final = r"[A-Za-z0-9._-]{0,32}"
DEVICE_ID_PATTERN: Final = rf"[\x20-\x7e]{{1,{MAX_FIELD_BYTES}}}"
TEXT_PATTERN: Final = r"[^\u0000-\u001f\u007f-\u009f]*"
"""No control characters."""
IDEMPOTENCY_KEY_PATTERN: Final = rf"[\x21-\x7e]{{1,{MAX_IDEMPOTENCY_KEY}}}"

_JOINERS: Final = "\u200c\u200d"
"""They join the parts of an emoji, and letters of Persian, Hindi and other languages are written with them."""
_FLAG: Final = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f"
"""Of Scotland, say: a black flag with letters that do not show."""
_NUMBER_SIGNS: Final = "\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
"""Of Arabic and others: format characters by their category only, since they are drawn."""
_HIDDEN: Final = ("Cf", "Zl", "Zp")
_NO_LETTER: Final = "\N{REPLACEMENT CHARACTER}"

_is_user_id: Final = re.compile(USER_ID_PATTERN).fullmatch
_is_key_prefix: Final = re.compile(KEY_PREFIX_PATTERN).fullmatch
_is_device_id: Final = re.compile(DEVICE_ID_PATTERN).fullmatch
# Lone surrogates are no characters, and UTF-8 cannot carry them; nor can a pattern that is told in JSON.
_is_text: Final = re.compile(TEXT_PATTERN.replace("]", "\ud800-\udfff]")).fullmatch
_parts: Final = re.compile(f"{_FLAG}|.", re.DOTALL).findall
_is_kept: Final = re.compile(f"{_FLAG}|[{_JOINERS}{_NUMBER_SIGNS}]").fullmatch
_is_idempotency_key: Final = re.compile(IDEMPOTENCY_KEY_PATTERN).fullmatch


def checked(field: str, check: Callable[[str], str], value: str) -> str:
    """Return the value if the check passes.

    Raises:
        InvalidInput: It does not.
    """
    try:
        return check(value)
    except ValueError as error:
        raise InvalidInput(field, str(error)) from None


def check_user_id(value: str) -> str:
    """Return the user id, or raise ValueError: braces, globs and blanks would let users meet each other's keys."""
    if not _is_user_id(value):
        raise ValueError(f"must be 1 to {MAX_USER_ID} of A-Z a-z 0-9 . _ ~ @ | : + = - and neither '.' nor '..'")
    return value


def check_key_prefix(value: str) -> str:
    """Return the key prefix, or raise ValueError."""
    if not _is_key_prefix(value):
        raise ValueError("must be at most 32 of A-Z a-z 0-9 . _ -")
    return value


def check_text(value: str) -> str:
    """Return a name or content id, or raise ValueError."""
    if not _is_text(value):
        raise ValueError("must not contain control characters")
    if not 1 <= len(value.encode()) <= MAX_FIELD_BYTES:
        raise ValueError(f"must be 1 to {MAX_FIELD_BYTES} bytes of UTF-8; leave it out if there is none")
    return value


def visible_text(value: str) -> str:
    """Return a name or content id without hidden characters, or raise ValueError as `check_text` does.

    Whoever shows it shall show what it says: U+202E would turn around what comes behind it, and other format characters
    tell names apart that look the same. They are left out and not refused, since a viewer who cannot watch would not
    know why. What has no other characters becomes U+FFFD.
    """
    value = check_text(value)
    if value.isascii():
        return value
    kept = "".join(part for part in _parts(value) if _is_kept(part) or unicodedata.category(part) not in _HIDDEN)
    return kept if kept.strip(_JOINERS) else _NO_LETTER


def check_device_id(value: str) -> str:
    """Return the device id, or raise ValueError."""
    if not _is_device_id(value):
        raise ValueError(f"must be 1 to {MAX_FIELD_BYTES} printable ASCII characters; leave it out if there is none")
    return value


def check_idempotency_key(value: str) -> str:
    """Return the idempotency key, or raise ValueError."""
    if not _is_idempotency_key(value):
        raise ValueError(f"must be 1 to {MAX_IDEMPOTENCY_KEY} visible ASCII characters")
    return value
