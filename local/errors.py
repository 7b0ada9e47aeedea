"""The one exception of the local stack."""


class LocalError(Exception):
    """The stack cannot start; the text is one line for a person and says what to do."""
