"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A user's mistake, said in one line: what is wrong, where, and what would be right.

    Commands print the line on stderr and exit with status 2; no traceback is shown.
    """


class AgreedError(UserError):
    """A user's mistake that every rank of a run knows of; the first rank says it."""
