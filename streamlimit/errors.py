"""What a caller of the library may have to catch."""


class StreamlimitError(Exception):
    """The base of all errors raised on purpose."""


class InvalidInput(StreamlimitError, ValueError):
    """A value from outside cannot be used.

    Args:
        field: Name of the field, as the caller knows it.
        message: What is wrong with it and what is right, fit for a person.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class StoreUnavailable(StreamlimitError):
    """The store gave no usable answer within the time budget.

    Whether the operation took effect is unknown: it means neither "denied" nor "ended". Repeating it does no harm.
    """


class StoreOverloaded(StoreUnavailable):
    """All of our own connections to the store were busy for too long. The store itself may be well."""


class DamagedKey(StoreUnavailable):
    """A key of the user is not a hash: somebody overwrote it by hand. Nothing was changed.

    What is owned by them is repaired by `StreamTracker.terminate_all` (streams and ended streams), `set_user_limit` and
    `delete_user` (the record).

    Args:
        key: Its name, with the user id in it.
        key_type: What TYPE says of it; empty where the server does not tell.
    """

    def __init__(self, key: str, key_type: str = "") -> None:
        super().__init__(f"{key} is damaged: its type is {key_type or 'another one'}, not hash")
        self.key = key
        self.key_type = key_type
