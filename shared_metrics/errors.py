"""The one exception for what a user can get wrong."""


class UserError(ValueError):
    """A user's mistake in ONE line: the flag or file, what is wrong, what to do.

    Commands print it and exit with 2 (`process.command`).
    """
