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
