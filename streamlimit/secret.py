"""The signing secret of a host that was given none: made once, kept in the data directory, shared by its workers."""

import logging
import os
import secrets
import stat
from pathlib import Path

from streamlimit.errors import StreamlimitError
from streamlimit.settings import MIN_SECRET_LENGTH

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_logger = logging.getLogger(__name__)


class SecretError(StreamlimitError):
    """The secret in the data directory cannot be used; the message says why and what to do."""


def load_or_make_secret(data_dir: Path) -> str:
    """Return the secret in the data directory; make one, for its owner only (mode 0600), where there is none.

    Raises:
        SecretError: The one that is there cannot be used.
        OSError: The directory cannot be used.
    """
    path = data_dir / "secret"
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # Written aside and linked, so that no other process ever reads half of it, and the first one wins.
        draft = data_dir / f"secret.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    _keep_from_others(path)
    return load_secret(data_dir)


def load_secret(data_dir: Path) -> str:
    """Return the secret in the data directory; empty where there is none.

    Raises:
        SecretError: The one that is there cannot be used.
        OSError: It cannot be read.
    """
    path = data_dir / "secret"
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise SecretError(f"{path}: is no UTF-8; {_advice(path)}") from None
    if len(secret) < MIN_SECRET_LENGTH:
        found = f"has {len(secret)} characters where {MIN_SECRET_LENGTH} are needed" if secret else "is empty"
        raise SecretError(f"{path}: {found}; {_advice(path)}")
    return secret


def _keep_from_others(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & _OTHERS:
        return
    try:
        path.chmod(mode & ~_OTHERS)
    except OSError as error:
        raise SecretError(f"{path}: others may use it (mode {mode:04o}), and {error.strerror}: chmod 600 it") from None
    _logger.warning(
        "%s was open to others (mode %04o), which has been changed; replace it if they are not trusted", path, mode
    )


def _advice(path: Path) -> str:
    return f"put back the one that was there; without it, rm {path} and a new one is made, which ends running streams"
