"""All settings: environment variables `STREAMLIMIT_*`, and the same names as options of `streamlimit serve`."""

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, CliSuppress, CliToggleFlag, SettingsConfigDict

from streamlimit.connection import MEMORY_URL, check_url
from streamlimit.errors import InvalidInput
from streamlimit.fields import MAX_SEATS, check_key_prefix
from streamlimit.rules import MAX_TTL_MS, Rules

ENV_PREFIX: Final = "STREAMLIMIT_"
MIN_SECRET_LENGTH: Final = 32


class Settings(BaseSettings):
    """Serve the HTTP API."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        cli_prog_name="streamlimit serve",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    redis_url: Annotated[str, AfterValidator(check_url)] = ""
    """`redis://`, `rediss://` or `unix://` of your own server, `redis+sentinel://`, `redis+cluster://`: see
    docs/architecture.md; empty: the embedded store; `memory://`: in this process, for a trial"""
    limit: int = Field(3, ge=0, le=MAX_SEATS)
    """streams that a user without a record may have live; at most MAX_LIMIT"""
    max_limit: int = Field(10, ge=1, le=MAX_SEATS)
    """seats of a user, which no limit exceeds; lower it only when no higher seat is in use"""
    budget_seconds: float = Field(1.0, ge=0.1, le=10)
    """every request is answered within this time, whatever the store does"""
    ttl_seconds: int = Field(90, ge=3, le=MAX_TTL_MS // 1000)
    """a stream without a heartbeat ends after this time"""
    heartbeat_seconds: int = Field(30, ge=1, le=MAX_TTL_MS // 3000)
    """how often players are asked for a heartbeat; at most a third of TTL_SECONDS, so that two may be lost"""
    unknown_users: Literal["admit", "reject"] = "admit"
    """users without a record: admit them with LIMIT, or reject them"""
    on_outage: Literal["deny", "allow"] = "deny"
    """while the store is out of reach: deny new streams (503), or allow them provisionally. See docs/guarantees.md"""
    enforce: bool = True
    """false is shadow mode: admit beyond the limit while a seat is free, and say `over_limit` in the answer"""
    secret: CliSuppress[SecretStr] = SecretStr("")
    """signs stream ids, at least 32 characters; several, separated by commas: the first signs, all are accepted; empty:
    one is made and kept in DATA_DIR. Only from the environment"""
    key_prefix: Annotated[str, AfterValidator(check_key_prefix)] = ""
    """put before every key, so that deployments can share a Redis"""
    host: str = "127.0.0.1"
    """address to listen on; another than a loopback address needs SECRET and INSECURE"""
    port: int = Field(8080, ge=0, le=65535)
    """port to listen on; 0 takes any free one"""
    workers: int = Field(1, ge=1, le=256)
    """processes that serve"""
    embedded_port: int = Field(6390, ge=1, le=65535)
    """port of the embedded store on 127.0.0.1"""
    data_dir: Path = Field(Path("~/.local/state/streamlimit"), validate_default=True)
    """the embedded store's files and the secret"""
    insecure: CliToggleFlag[bool] = False
    """listen on a public address although callers are not authenticated"""

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, value: SecretStr) -> SecretStr:
        if any(len(secret) < MIN_SECRET_LENGTH for secret in _split(value)) or (
            value.get_secret_value() and not _split(value)
        ):
            raise ValueError(f"each secret must have at least {MIN_SECRET_LENGTH} characters: openssl rand -hex 32")
        return value

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        if value != "localhost":
            try:
                ipaddress.ip_address(value)
            except ValueError:
                raise ValueError("must be an IP address, or localhost") from None
        return value

    @field_validator("data_dir")
    @classmethod
    def _make_absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        try:
            _ = self.rules
        except InvalidInput as error:
            name = f"{ENV_PREFIX}{error.field.replace('_ms', '_seconds').upper()}"
            raise ValueError(f"{name}: {error.message}") from None
        if self.redis_url == MEMORY_URL and self.workers > 1:
            raise ValueError(f"{ENV_PREFIX}WORKERS: must be 1 with REDIS_URL memory://, which lives in one process")
        if not self.listens_on_loopback:
            if not self.insecure:
                raise ValueError(
                    f"{ENV_PREFIX}HOST: {self.host} is public, and callers are not authenticated: put a gateway in "
                    "front and say --insecure, or listen on 127.0.0.1"
                )
            if not self.secrets:
                raise ValueError(f"{ENV_PREFIX}HOST: {self.host} is public: set {ENV_PREFIX}SECRET")
        return self

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    @property
    def is_embedded(self) -> bool:
        """Whether `streamlimit serve` runs the store itself."""
        return not self.redis_url

    @property
    def store_url(self) -> str:
        """Where the store is."""
        return self.redis_url or f"redis://127.0.0.1:{self.embedded_port}/0"

    @property
    def store_address(self) -> str:
        """The same for people: without user name, password and options."""
        parts = urlsplit(self.store_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def secrets(self) -> list[str]:
        """The configured secrets, the one that signs first; empty where there are none."""
        return _split(self.secret)

    @property
    def rules(self) -> Rules:
        """The domain's part of the settings."""
        return Rules(
            limit=self.limit,
            max_limit=self.max_limit,
            ttl_ms=self.ttl_seconds * 1000,
            heartbeat_ms=self.heartbeat_seconds * 1000,
            unknown_users=self.unknown_users,
            enforce=self.enforce,
            on_outage=self.on_outage,
        )

    def as_environment(self) -> dict[str, str]:
        """The same settings as environment variables, for worker processes."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values["secret"] = self.secret.get_secret_value()
        return {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in values.items()}


def explain(error: ValidationError) -> str:
    """Say on one line which settings are wrong, by the names of the environment variables and options."""
    lines = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        # What concerns several settings has no place of its own, and names them itself.
        names = [f"{ENV_PREFIX}{str(name).upper()}{_option(str(name))}" for name in one["loc"][:1]]
        lines.append(": ".join([*names, one["msg"].removeprefix("Value error, ")]))
    return "; ".join(lines)


def _option(name: str) -> str:
    return "" if name == "secret" else f" (--{name.replace('_', '-')})"


def _split(secret: SecretStr) -> list[str]:
    return [part for part in (part.strip() for part in secret.get_secret_value().split(",")) if part]
