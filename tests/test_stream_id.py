"""Stream ids: what they carry, and that nobody invents one."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlimit.stream_id import Signer, StreamId, mint_ref, parse_stream_id, parse_stream_ref

SECRET = "s" * 32
SIGNER = Signer([SECRET])


def signed(user_id: str = "alice", limit: int = 3, signer: Signer = SIGNER) -> StreamId:
    ref = mint_ref(limit)
    return StreamId(1, ref, signer.sign(user_id, ref))


def test_a_stream_id_is_safe_in_a_url() -> None:
    assert re.fullmatch(r"1\.[A-Za-z0-9_-]{19}\.[A-Za-z0-9_-]{16}", str(signed()))


def test_a_ref_carries_time_and_limit() -> None:
    before = time.time_ns() // 1_000_000
    stream_id = signed(limit=64)

    assert stream_id.limit == 64
    assert before <= stream_id.minted_ms <= time.time_ns() // 1_000_000


def test_refs_of_one_millisecond_differ() -> None:
    assert len({mint_ref(3) for _ in range(1_000)}) == 1_000


@given(seat=st.integers(1, 99))
def test_what_was_written_can_be_read(seat: int) -> None:
    stream_id = signed()
    stream_id = StreamId(seat, stream_id.ref, stream_id.sig)

    assert parse_stream_id(str(stream_id)) == stream_id
    assert parse_stream_ref(f"{seat}.{stream_id.ref}") == StreamId(seat, stream_id.ref)


@given(st.text() | st.from_regex(r"[0-9]{0,3}\.[A-Za-z0-9_=-]{0,20}(\.[A-Za-z0-9_=-]{0,17})?", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parsed in (parse_stream_id(text), parse_stream_ref(text)):
        assert parsed is None or str(parsed) == text
        assert parsed is None or 0 <= parsed.limit < 256


def test_a_genuine_id_is_recognised() -> None:
    assert SIGNER.is_genuine("alice", signed())


@pytest.mark.parametrize(
    "other",
    [
        signed("bob"),
        signed(signer=Signer(["t" * 32])),
        signed(signer=Signer([SECRET], "prefix")),
        StreamId(1, mint_ref(3), "A" * 16),
        StreamId(1, signed().ref, signed().sig),
    ],
    ids=["another user", "another secret", "another prefix", "invented", "another ref"],
)
def test_a_foreign_id_is_not(other: StreamId) -> None:
    assert not SIGNER.is_genuine("alice", other)


@pytest.mark.parametrize("place", range(16))
def test_every_character_of_a_signature_counts(place: int) -> None:
    right = signed()
    wrong = "B" if right.sig[place] == "A" else "A"

    assert not SIGNER.is_genuine("alice", right._replace(sig=right.sig[:place] + wrong + right.sig[place + 1 :]))


def test_the_first_secret_signs_and_all_are_accepted() -> None:
    rotated = Signer(["n" * 32, SECRET])

    assert rotated.is_genuine("alice", signed())
    assert not SIGNER.is_genuine("alice", signed(signer=rotated))


@pytest.mark.parametrize("secrets", [[], [""], [SECRET, ""]])
def test_there_is_no_signing_without_a_secret(secrets: list[str]) -> None:
    with pytest.raises(ValueError, match="secret"):
        Signer(secrets)
