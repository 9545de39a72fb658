"""Secrets out of files, as containers get them: `NAME_FILE` is the path of a file that holds what `NAME` would say."""

import os
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

FILE_SUFFIX: Final = "_FILE"


def secret_names(settings: type[BaseSettings]) -> list[str]:
    """The settings that are secrets."""
    return [name for name, field in settings.model_fields.items() if field.annotation is SecretStr]


class SecretFiles(PydanticBaseSettingsSource):
    """Reads the files that `NAME_FILE` variables name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value, its name, and that it is no JSON.

        Raises:
            SettingsError: The file cannot be read, or the variable without `_FILE` is set, too.
        """
        name = f"{self.config['env_prefix']}{field_name}".upper()
        path = os.environ.get(name + FILE_SUFFIX)
        if field.annotation is not SecretStr or not path:
            return None, field_name, False
        if os.environ.get(name):
            raise SettingsError(f"{name}{FILE_SUFFIX}: {name} is set, too; take one of them")
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no UTF-8"
            raise SettingsError(f"{name}{FILE_SUFFIX}: {path}: {reason}") from None
        if not value:
            # A secret that was meant and is not there must not leave everything open.
            raise SettingsError(f"{name}{FILE_SUFFIX}: {path}: is empty")
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return what was found."""
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}
