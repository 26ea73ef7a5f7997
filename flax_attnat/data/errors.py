"""The one exception of this room."""


class DataError(ValueError):
    """A file that cannot be used; the message says which file, where in it, what was expected and what to do."""
