"""Every parser of what comes from outside: it reads a value, or says what is wrong with it, and does nothing else."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from streamlimit import fields
from streamlimit.callers import Caller, NotAuthenticated
from streamlimit.connection import check_url
from streamlimit.cors import parse_origins
from streamlimit.keys import Keys
from streamlimit.settings import Settings
from streamlimit.stream_id import parse_stream_id, parse_stream_ref
from streamlimit.token_keys import configured_keys, read_key_set
from streamlimit.token_settings import ASYMMETRIC, check_algorithms, check_jwks_url
from streamlimit.tokens import TokenVerifier
from tests.issuer import AUDIENCE, ISSUER, key_set, part, public_jwk, token

ANY: Final = st.text(max_size=200)
NEARLY_AN_ID: Final = st.from_regex(r"[0-9]{0,3}\.?[\w-]{17,21}\.?[\w-]{14,18}\n?", fullmatch=True)
NEARLY_A_USER: Final = st.text("aB9._~@|:+=-{}*?[] /%\\\n\0é", max_size=140)
NEARLY_A_URL: Final = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "rediss+cluster", "http", ""]),
        st.sampled_from(["://", ":", "//"]),
        st.sampled_from(["", "u:p@", ":p@", "u:p#@", "@@"]),
        st.lists(st.sampled_from(["h", "h:1", "h:x", "h:70000", "[::1]:1", "[", "127.0.0.1:6379"]), max_size=3).map(
            ",".join
        ),
        st.sampled_from(["", "/", "/0", "/x", "/a/b", "/0?db=1", "?x=y", "?socket_timeout=x", "/s?ssl_cert_reqs=none"]),
    ),
)
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["keys", "kty", "kid", "n"]), inner),
    max_leaves=12,
)
VERIFIER: Final = TokenVerifier(
    configured_keys(key_set(public_jwk("EdDSA")), ASYMMETRIC),
    algorithms=ASYMMETRIC,
    issuer=ISSUER,
    audience=AUDIENCE,
    leeway_seconds=0,
    max_limit=10,
)


@given(NEARLY_AN_ID | ANY)
@example("1." + "A" * 19 + "." + "A" * 16)
def test_a_stream_id_is_read_as_it_is_written_or_not_at_all(text: str) -> None:
    found = parse_stream_id(text)
    assert found is None or str(found) == text

    named = parse_stream_ref(text)
    assert named is None or str(named) == text


@given(NEARLY_A_USER | ANY)
def test_a_user_id_makes_keys_of_that_user_only(user_id: str) -> None:
    try:
        fields.check_user_id(user_id)
    except ValueError:
        return
    for key in Keys("prefix").all_of(user_id)[:2]:
        assert key.partition("{")[2].partition("}") == (user_id, "}", "")


@pytest.mark.parametrize(
    "check", [fields.check_text, fields.check_device_id, fields.check_idempotency_key, fields.check_key_prefix]
)
@given(text=ANY | st.text("\ud800\udfff\x00\x7f\x9fa", max_size=70))
def test_a_field_is_taken_as_it_is_or_refused(check: Callable[[str], str], text: str) -> None:
    try:
        assert check(text) == text
    except ValueError:
        return
    assert text.encode().decode() == text


INVISIBLE: Final = "\u202a\u202e\u2066\u2069\u200b\u200e\u061c\u00ad\ufeff\u2060\u2028\u2029\U000e0041\U000e007f"
SHOWN: Final = [
    "Zoë's TV",
    "Wohnzimmer 📺",
    "👩\u200d👩\u200d👧\u200d👦 ❤\ufe0f",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # of Persian
    "क्\u200dष",
    "עברית",
    "\u0600\u0661\u0662",  # a number in Arabic
    " ",
]


@pytest.mark.parametrize("text", SHOWN)
def test_a_name_in_any_language_and_with_emoji_stays_as_it_is(text: str) -> None:
    assert fields.visible_text(text) == text


@pytest.mark.parametrize("hidden", INVISIBLE)
def test_what_does_not_show_is_left_out_of_a_name(hidden: str) -> None:
    assert fields.visible_text(f"{hidden}Kids{hidden}' 📺{hidden}") == "Kids' 📺"


@pytest.mark.parametrize("text", ["\u202e", "\u200d", "\u202e\u200c\u2028"])
def test_a_name_of_which_nothing_shows_is_shown_to_be_none(text: str) -> None:
    assert fields.visible_text(text) == "\N{REPLACEMENT CHARACTER}"


@given(st.text(f"{INVISIBLE}\u200d🏴\U000e0067\U000e007fa é\x00", max_size=20) | ANY)
def test_a_name_shows_what_it_says_or_is_refused(text: str) -> None:
    try:
        shown = fields.visible_text(text)
    except ValueError:
        return
    assert fields.visible_text(shown) == shown == fields.check_text(shown)
    assert not set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2028\u2029") & set(shown)


@given(NEARLY_A_URL | ANY)
@example("redis://u:secret#x@h")
def test_the_address_of_a_store_is_taken_or_refused_without_its_password(url: str) -> None:
    try:
        assert check_url(url) == url
    except ValueError as error:
        told = str(error)
    else:
        told = ""
    assert "secret" not in told


@given(st.sampled_from(sorted(set(Settings.model_fields) - {"data_dir"})), ANY | NEARLY_A_URL | st.integers().map(str))
def test_a_setting_is_taken_or_refused(name: str, value: str) -> None:
    with contextlib.suppress(ValidationError):
        assert name in Settings.model_validate({name: value}).model_dump()


@given(ANY | st.lists(st.sampled_from(["https://tv.example", "*", "null", "http://a:1", "https://a/b"])).map(",".join))
def test_origins_are_exact(text: str) -> None:
    try:
        found = parse_origins(text)
    except ValueError:
        return
    assert all(origin.startswith(("http://", "https://")) and "*" not in origin for origin in found)


@given(JSON.map(json.dumps) | st.binary(max_size=200))
def test_a_key_set_has_keys_or_is_none(text: str | bytes) -> None:
    with contextlib.suppress(ValueError):
        assert read_key_set(text, ASYMMETRIC)


@given(JSON, JSON, st.binary(max_size=70))
def test_nothing_that_is_invented_is_a_token(header: Any, claims: Any, signature: bytes) -> None:
    assert not_authenticated(f"{part(header)}.{part(claims)}.{signature.hex()}")


@given(st.data())
def test_no_altered_token_is_taken(data: st.DataObject) -> None:
    good = token("EdDSA")
    place = data.draw(st.integers(0, len(good) - 2))  # the last character holds bits that do not count
    altered = good[:place] + data.draw(st.sampled_from("Az0-_.")) + good[place + 1 :]

    assert altered == good or not_authenticated(altered)


@given(ANY)
def test_no_text_is_a_token(text: str) -> None:
    assert not_authenticated(text)


def not_authenticated(text: str) -> bool:
    async def verify() -> Caller:
        return await VERIFIER.verify(text)

    try:
        asyncio.run(verify())
    except NotAuthenticated:
        return True
    return False


@pytest.mark.parametrize("algorithms", ["HS256", "RS256", "RS256, EdDSA"])
def test_algorithms_of_one_kind_may_be_allowed(algorithms: str) -> None:
    assert check_algorithms(algorithms) == algorithms


@pytest.mark.parametrize("algorithms", ["", "none", "HS256,RS256", "RS256,HS256", "RS256,none"])
def test_algorithms_of_both_kinds_or_others_may_not(algorithms: str) -> None:
    with pytest.raises(ValueError, match="or HS256 alone"):
        check_algorithms(algorithms)


@pytest.mark.parametrize("url", ["", "https://id.example/keys", "http://127.0.0.1:8000/keys", "http://[::1]/keys"])
def test_keys_may_come_over_tls_or_from_this_machine(url: str) -> None:
    assert check_jwks_url(url) == url


@pytest.mark.parametrize(
    "url", ["http://id.example/keys", "http://127.0.0.1.evil.example/", "ftp://127.0.0.1/", "https:///x"]
)
def test_keys_may_not_come_otherwise(url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        check_jwks_url(url)
