"""What may be configured about players' tokens, checked without the libraries that it takes to verify one."""

from typing import Final

from streamlimit.urls import port_of, split_url

SYMMETRIC: Final = "HS256"
ASYMMETRIC: Final = ("RS256", "ES256", "EdDSA")


def check_algorithms(value: str) -> str:
    """Return the algorithms, or raise ValueError: with both kinds allowed, a public key might be taken for a secret."""
    names = parse_algorithms(value)
    if names != (SYMMETRIC,) and (not names or not set(names) <= set(ASYMMETRIC)):
        raise ValueError(f"must be some of {', '.join(ASYMMETRIC)}, or {SYMMETRIC} alone")
    return value


def parse_algorithms(value: str) -> tuple[str, ...]:
    """Read the algorithms, which are separated by commas."""
    return tuple(part for part in (part.strip() for part in value.split(",")) if part)


def check_jwks_url(value: str) -> str:
    """Return the URL, or raise ValueError: without TLS, whoever is on the way could put keys of its own in."""
    if value:
        parts = split_url(value)
        port_of(parts)
        is_local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        if not parts.hostname or not (parts.scheme == "https" or is_local):
            raise ValueError("must begin with https://, or be an http:// address of this machine")
    return value
