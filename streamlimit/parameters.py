"""What callers send beside bodies: the parameters of paths, queries and headers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from streamlimit import examples
from streamlimit.fields import (
    DEVICE_ID_PATTERN,
    IDEMPOTENCY_KEY_PATTERN,
    MAX_FIELD_BYTES,
    MAX_IDEMPOTENCY_KEY,
    MAX_USER_ID,
    USER_ID_PATTERN,
)
from streamlimit.stream_id import STREAM_ID_PATTERN, STREAM_REF_PATTERN


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, as OpenAPI tells of it."""

    name: str
    place: Literal["path", "query", "header"]
    description: str
    schema: Mapping[str, Any]
    example: str | None
    """What `/docs` fills in; None where it had better be empty."""

    def document(self) -> dict[str, Any]:
        """Write the OpenAPI Parameter Object."""
        found = {
            "name": self.name,
            "in": self.place,
            "required": self.place == "path",
            "description": self.description,
            "schema": self.schema,
        }
        return found if self.example is None else found | {"example": self.example}


def _text(pattern: str, max_length: int | None = None) -> dict[str, Any]:
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return schema if max_length is None else schema | {"minLength": 1, "maxLength": max_length}


USER_ID: Final = Parameter(
    "user_id",
    "path",
    "1 to 128 of A-Z a-z 0-9 . _ ~ @ | : + = - and neither '.' nor '..'",
    _text(USER_ID_PATTERN, MAX_USER_ID),
    examples.USER_ID,
)
STREAM_ID: Final = Parameter(
    "stream_id", "path", "SEAT.REF.SIG, as the last answer gave it", _text(STREAM_ID_PATTERN), examples.STREAM_ID
)
STREAM_ID_OR_REF: Final = Parameter(
    "stream_id",
    "path",
    "SEAT.REF.SIG releases, SEAT.REF, as listings and refusals show it, terminates",
    _text(f"({STREAM_ID_PATTERN}|{STREAM_REF_PATTERN})"),
    examples.STREAM_REF,
)
ANY_STREAM_ID: Final = Parameter(
    "stream_id",
    "path",
    "SEAT.REF.SIG, as the last answer gave it; other text is answered alike",
    {"type": "string"},
    examples.STREAM_ID,
)
DEVICE_ID: Final = Parameter(
    "device_id",
    "query",
    "The device that would be admitted; its own live stream would be replaced",
    _text(DEVICE_ID_PATTERN, MAX_FIELD_BYTES),
    examples.DEVICE_ID,
)
IDEMPOTENCY_KEY: Final = Parameter(
    "Idempotency-Key",
    "header",
    "1 to 255 visible ASCII characters, such as a new UUID, taken literally. The same key again gives the same stream, "
    "while that is live",
    _text(IDEMPOTENCY_KEY_PATTERN, MAX_IDEMPOTENCY_KEY),
    None,
)
