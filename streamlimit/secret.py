"""The signing secret of a host that was given none: made once, kept in the data directory, shared by its workers."""

import os
import secrets
from pathlib import Path


def load_or_make_secret(data_dir: Path) -> str:
    """Return the secret in the data directory; make one, for its owner only (mode 0600), where there is none.

    Raises:
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
    return path.read_text(encoding="ascii").strip()
