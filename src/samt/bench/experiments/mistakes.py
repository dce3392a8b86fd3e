"""Mistakes in an experiment file: where they stand, in words that tell the cure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from samt.bench.errors import ExperimentError
from samt.bench.experiments.yaml_lines import Lines
from samt.errors import suggestion

_MESSAGES = {
    "missing": "it is missing: write it",
    "too_short": "write at least one",
    "string_pattern_mismatch": "write letters, digits, dots and hyphens, 61 of them at most, "
    "and begin with a letter or digit",
}


def mistake(message: str, *field: str | int) -> PydanticCustomError:
    """A mistake in a field below the one that is being checked."""
    return PydanticCustomError("mistake", "{message}", {"message": message, "field": field})


@contextmanager
def field(*names: str | int) -> Iterator[None]:
    """Say that a `ValueError` is about a field below the one that is being checked."""
    try:
        yield
    except ValueError as error:
        raise mistake(str(error), *names) from error


def explained(
    error: ValidationError,
    lines: Lines,
    known: Mapping[str, Sequence[str]],
    prefix: tuple[str, ...] = (),
    own: Mapping[str, object] = {},
) -> ExperimentError:
    """What pydantic found, for people.

    Args:
        error: of pydantic.
        lines: of the file.
        known: names of the fields of each mapping, by the field that holds it; "" is the file.
        prefix: where the fields of a profile stand.
        own: what stands there.
    """
    places: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for one in error.errors(include_url=False, include_input=False):
        where = (*one["loc"], *one.get("ctx", {}).get("field", ()))
        path = (*prefix, *where) if where and where[0] in own else where
        places.setdefault(lines.place(path)[1], []).append({**one, "loc": path})
    place, first = next(iter(places.items()))
    # A union has an error for each of its types, all of them at one place or below it.
    more = sum(one[: len(place)] != place for one in places)
    text = " or ".join(dict.fromkeys(_message(one, known) for one in first))
    text = text.replace(" or it must be ", " or ") + (f" (and {more} more)" if more else "")
    missing = str(first[0]["loc"][-1]) if first[0]["type"] == "missing" else None
    return lines.error(first[0]["loc"], text, missing)


def _message(error: ErrorDetails, known: Mapping[str, Sequence[str]]) -> str:
    kind, names = error["type"], [str(one) for one in error["loc"]]
    if kind == "extra_forbidden":
        above = next((one for one in reversed(names[:-1]) if one in known), "")
        return f"unknown field: {suggestion(names[-1], known[above])}"
    if kind == "model_type":
        above = next(one for one in reversed(names) if one in known)
        text = "a method, or " if above == "methods" else ""
        return f"it must be {text}a mapping with {', '.join(known[above])}"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "it must")
    return _MESSAGES.get(kind, message)
