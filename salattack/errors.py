"""The one exception for errors that a user can cause and fix."""


class SalattackError(ValueError):
    """A mistake in the input: one sentence that says what is wrong and what to do."""


def one_of(kind: str, name: str, known: object) -> SalattackError:
    """Return the error for an unknown ``name`` that lists the ``known`` ones."""
    return SalattackError(f"unknown {kind} {name!r}; known: {', '.join(map(str, known))}")
