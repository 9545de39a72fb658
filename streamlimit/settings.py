"""All settings: environment variables `STREAMLIMIT_*`, and the same names as options of `streamlimit serve`."""

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSuppress,
    CliToggleFlag,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from streamlimit.api_keys import parse_digests
from streamlimit.audit import Naming
from streamlimit.callers import Role
from streamlimit.connection import MEMORY_URL, check_url
from streamlimit.cors import check_origins, parse_origins
from streamlimit.errors import InvalidInput
from streamlimit.fields import MAX_SEATS, check_key_prefix
from streamlimit.rules import MAX_TTL_MS, Rules
from streamlimit.secret_files import SecretFiles, secret_names
from streamlimit.token_settings import SYMMETRIC, check_algorithms, check_jwks_url, parse_algorithms

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
    docs/scaling.md; empty: the embedded store; `memory://`: in this process, for a trial"""
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
    admissions_per_minute: int = Field(120, ge=0, le=100_000)
    """as many admissions may be asked for, for one user; more are answered 429; 0: any number"""
    enforce: bool = True
    """false is shadow mode: admit beyond the limit while a seat is free, and say `over_limit` in the answer"""
    secret: CliSuppress[SecretStr] = SecretStr("")
    """signs stream ids, at least 32 characters; several, separated by commas: the first signs, all are accepted; empty:
    one is made and kept in DATA_DIR"""
    service_keys: CliSuppress[SecretStr] = SecretStr("")
    """SHA-256 digests, in hex, of the API keys of services (back ends), separated by commas"""
    operator_keys: CliSuppress[SecretStr] = SecretStr("")
    """the same of operators"""
    jwt_key: CliSuppress[SecretStr] = SecretStr("")
    """verifies the tokens of players: public keys in PEM, one after the other, or a JSON Web Key Set; with HS256 a
    secret of at least 32 characters, or several, separated by commas"""
    jwt_jwks_url: Annotated[str, AfterValidator(check_jwks_url)] = ""
    """instead of JWT_KEY: an `https://` address of the JSON Web Key Set, which is fetched every 5 minutes, and when a
    token names an unknown key"""
    jwt_algorithms: Annotated[str, AfterValidator(check_algorithms)] = "RS256,ES256,EdDSA"
    """how tokens may be signed: some of these, or HS256 alone"""
    jwt_issuer: str = ""
    """the `iss` of every token; needed where there is a key"""
    jwt_audience: str = ""
    """what the `aud` of every token has to hold; needed where there is a key"""
    jwt_leeway_seconds: int = Field(10, ge=0, le=60)
    """by how much the clock of whoever makes tokens may differ"""
    failures_per_minute: int = Field(10, ge=0, le=100_000)
    """so often a key or token may be wrong; after that it is answered 429 without a look at it; 0: any number"""
    key_prefix: Annotated[str, AfterValidator(check_key_prefix)] = ""
    """put before every key, so that deployments can share a Redis"""
    host: str = "127.0.0.1"
    """address to listen on; another than a loopback address needs SECRET, and keys or INSECURE"""
    port: int = Field(8080, ge=0, le=65535)
    """port to listen on; 0 takes any free one"""
    operator_host: str = "127.0.0.1"
    """address of OPERATOR_PORT; the same is needed as for HOST"""
    operator_port: int | None = Field(None, ge=0, le=65535)
    """a port for operators, which has everything; the other one then lacks `/metrics`, `/readyz`, `/docs` and what only
    operators may do"""
    max_connections: int = Field(10_000, ge=1, le=1_000_000)
    """that each worker holds; a further one is answered 503 and closed, but for OPERATOR_PORT"""
    request_seconds: int = Field(20, ge=1, le=3600)
    """time for the head of a request to arrive, and as much for its body and for reading the answer; then 408, and
    the connection is closed"""
    workers: int = Field(1, ge=1, le=256)
    """processes that serve"""
    drain_seconds: float = Field(5.0, ge=0, le=300)
    """seconds between SIGTERM and the closing of the ports, in which `/readyz` is a 503 and answers carry
    `Connection: close`, so that clients and load balancers go elsewhere; Ctrl-C skips it"""
    embedded_port: int = Field(6390, ge=1, le=65535)
    """port of the embedded store on 127.0.0.1"""
    data_dir: Path = Field(Path("~/.local/state/streamlimit"), validate_default=True)
    """the embedded store's files and the secret"""
    insecure: CliToggleFlag[bool] = False
    """listen on a public address although no keys are configured, and whoever connects may do everything, by whatever
    host name"""
    cors_origins: Annotated[str, AfterValidator(check_origins)] = ""
    """origins of web pages that may read the answers, such as `https://tv.example`, separated by commas"""
    log_user_ids: Naming = "hashed"
    """how the log names users: by an HMAC with SECRET, by their first three characters, or as they are"""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read secrets from files, too."""
        return init_settings, env_settings, SecretFiles(settings_cls), dotenv_settings, file_secret_settings

    @field_validator("secret")
    @classmethod
    def _check_secret(cls, value: SecretStr) -> SecretStr:
        secrets = _split(value.get_secret_value())
        if any(len(secret) < MIN_SECRET_LENGTH for secret in secrets) or (value.get_secret_value() and not secrets):
            raise ValueError(f"each secret must have at least {MIN_SECRET_LENGTH} characters: openssl rand -hex 32")
        return value

    @field_validator("service_keys", "operator_keys")
    @classmethod
    def _check_digests(cls, value: SecretStr) -> SecretStr:
        parse_digests(value.get_secret_value())
        return value

    @field_validator("host", "operator_host")
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
        self._check_tokens()
        if self.operator_port and self.operator_port == self.port:
            raise ValueError(f"{ENV_PREFIX}OPERATOR_PORT: must be another than {ENV_PREFIX}PORT")
        for name, host in self.public_addresses.items():
            if not self.authenticates and not self.insecure:
                raise ValueError(
                    f"{ENV_PREFIX}{name}: {host} is public, and without keys everybody may do everything: set "
                    f"{ENV_PREFIX}SERVICE_KEYS, OPERATOR_KEYS or JWT_KEY, or listen on 127.0.0.1; --insecure listens "
                    "all the same"
                )
            if not self.secrets:
                raise ValueError(f"{ENV_PREFIX}{name}: {host} is public: set {ENV_PREFIX}SECRET")
        return self

    def _check_tokens(self) -> None:
        if not self.verifies_tokens:
            return
        if self.jwt_key.get_secret_value() and self.jwt_jwks_url:
            raise ValueError(f"{ENV_PREFIX}JWT_JWKS_URL: {ENV_PREFIX}JWT_KEY is set, too; take one of them")
        for name in ("jwt_issuer", "jwt_audience"):
            if not getattr(self, name):
                raise ValueError(f"{ENV_PREFIX}{name.upper()}: must be set, since players' tokens are verified")
        if self.jwt_jwks_url:
            if self.algorithms == (SYMMETRIC,):
                raise ValueError(f"{ENV_PREFIX}JWT_ALGORITHMS: {SYMMETRIC} needs a secret, which no URL gives")
            return
        from streamlimit.token_keys import configured_keys  # noqa: PLC0415 - 9 MB that not everybody needs

        try:
            configured_keys(self.jwt_key.get_secret_value(), self.algorithms)
        except ValueError as error:
            raise ValueError(f"{ENV_PREFIX}JWT_KEY: {error}") from None

    @property
    def public_addresses(self) -> dict[str, str]:
        """The settings, and what they say, that let others than this machine connect."""
        hosts = {"HOST": self.host} | ({} if self.operator_port is None else {"OPERATOR_HOST": self.operator_host})
        return {name: host for name, host in hosts.items() if not _is_loopback(host)}

    @property
    def verifies_tokens(self) -> bool:
        """Whether there are keys for players' tokens."""
        return bool(self.jwt_key.get_secret_value() or self.jwt_jwks_url)

    @property
    def authenticates(self) -> bool:
        """Whether callers are asked who they are."""
        return bool(self.verifies_tokens or any(self.digests.values()))

    @property
    def digests(self) -> dict[Role, tuple[str, ...]]:
        """Of the API keys of each role."""
        return {
            Role.SERVICE: parse_digests(self.service_keys.get_secret_value()),
            Role.OPERATOR: parse_digests(self.operator_keys.get_secret_value()),
        }

    @property
    def algorithms(self) -> tuple[str, ...]:
        """How tokens may be signed."""
        return parse_algorithms(self.jwt_algorithms)

    @property
    def origins(self) -> tuple[str, ...]:
        """Of web pages that may read the answers."""
        return parse_origins(self.cors_origins)

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
        return _split(self.secret.get_secret_value())

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
            admissions_per_minute=self.admissions_per_minute,
        )


def explain(error: ValidationError) -> str:
    """Say on one line which settings are wrong, by the names of the environment variables and options."""
    lines = []
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        # What concerns several settings has no place of its own, and names them itself.
        names = [f"{ENV_PREFIX}{str(name).upper()}{_option(str(name))}" for name in one["loc"][:1]]
        lines.append(": ".join([*names, one["msg"].removeprefix("Value error, ")]))
    return "; ".join(lines)


def _option(name: str) -> str:
    return "" if name in secret_names(Settings) else f" (--{name.replace('_', '-')})"


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def _split(text: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(",")) if part]
