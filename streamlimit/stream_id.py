"""Stream ids: `SEAT.REF.SIG`. REF.SIG is the identity, SEAT a hint where to look first.

REF is 48 bits of time (Unix ms), 8 bits of the limit at admission and 56 random bits. SIG is HMAC-SHA256 (RFC 2104)
under the service's secret over key prefix, NUL, user, NUL, REF, cut to 96 bits. Both are base64url without padding
(RFC 4648). Whoever has the whole id may heartbeat and release that stream; `SEAT.REF`, the stream ref, only names it.
"""

import hmac
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final, NamedTuple

REF_PATTERN: Final = r"[A-Za-z0-9_-]{19}"
STREAM_REF_PATTERN: Final = rf"([1-9][0-9]?)\.({REF_PATTERN})"
STREAM_ID_PATTERN: Final = rf"{STREAM_REF_PATTERN}\.([A-Za-z0-9_-]{{16}})"
_REF = re.compile(REF_PATTERN)
_STREAM_ID = re.compile(STREAM_ID_PATTERN)
_STREAM_REF = re.compile(STREAM_REF_PATTERN)


class StreamId(NamedTuple):
    """A parsed stream id. `sig` is empty in a stream ref."""

    seat: int
    ref: str
    sig: str = ""

    def __str__(self) -> str:
        return f"{self.seat}.{self.ref}.{self.sig}" if self.sig else f"{self.seat}.{self.ref}"

    @property
    def minted_ms(self) -> int:
        """When it was minted, Unix ms."""
        return int.from_bytes(_decode_ref(self.ref)[:6])

    @property
    def limit(self) -> int:
        """The user's limit when it was minted."""
        return _decode_ref(self.ref)[6]


def parse_stream_id(text: str) -> StreamId | None:
    """Read `SEAT.REF.SIG`; None where the text is nothing of the kind."""
    match = _STREAM_ID.fullmatch(text)
    return StreamId(int(match[1]), match[2], match[3]) if match else None


def parse_stream_ref(text: str) -> StreamId | None:
    """Read `SEAT.REF`; None where the text is nothing of the kind."""
    match = _STREAM_REF.fullmatch(text)
    return StreamId(int(match[1]), match[2]) if match else None


def ref_of_seat(ref: str | None, seat: int) -> str:
    """The REF by which a stream is listed and ended: its own, or where it has none that can be used, one of its seat.

    Only somebody who wrote the key by hand leaves it without. The scripts know the other one, too (`nameless`).
    """
    return ref if ref and _REF.fullmatch(ref) else f"no-ref-in-seat-{seat:04d}"


def mint_ref(limit: int) -> str:
    """Make the REF of a new stream, for a user with this limit."""
    now_ms = time.time_ns() // 1_000_000
    return _base64(now_ms.to_bytes(6) + limit.to_bytes(1) + secrets.token_bytes(7))


class Signer:
    """Signs REFs, and tells genuine ones from invented ones.

    Args:
        secrets: The first signs; all are accepted, so that a secret can be changed while streams run.
        key_prefix: Deployments that share a secret do not accept each other's ids.

    Raises:
        ValueError: No secret was given.
    """

    def __init__(self, secrets: Sequence[str], key_prefix: str = "") -> None:
        if not secrets or not all(secrets):
            raise ValueError("a signing secret is needed")
        self._secrets = [secret.encode() for secret in secrets]
        self._key_prefix = key_prefix

    def sign(self, user_id: str, ref: str) -> str:
        """Return the SIG of a REF of this user."""
        return self._signature(self._secrets[0], user_id, ref)

    def is_genuine(self, user_id: str, stream_id: StreamId) -> bool:
        """Whether one of the secrets signed this id for this user. Takes the same time for every wrong SIG."""
        genuine = False
        for secret in self._secrets:
            genuine |= hmac.compare_digest(self._signature(secret, user_id, stream_id.ref), stream_id.sig)
        return genuine

    def _signature(self, secret: bytes, user_id: str, ref: str) -> str:
        message = f"{self._key_prefix}\0{user_id}\0{ref}".encode()
        return _base64(hmac.digest(secret, message, "sha256")[:12])


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode_ref(ref: str) -> bytes:
    return urlsafe_b64decode(ref + "=")
