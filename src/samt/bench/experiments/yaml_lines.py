"""YAML with line numbers, so that a mistake can be found where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from samt.bench.errors import ExperimentError

_LARGEST = 1 << 20  # bytes


class Lines:
    """Where each field of a file stands.

    Args:
        path: of the file.
        root: its tree of nodes.
    """

    def __init__(self, path: Path, root: yaml.Node) -> None:
        self.path = path
        self._root = root

    def error(self, field: Sequence[str | int], message: str) -> ExperimentError:
        """An error that names file, line and field.

        Args:
            field: keys and indices that lead there; those that do not exist in the file (pydantic
                names the types of a union, too) are left out.
            message: what is wrong, with its cure.
        """
        node, found = self._root, []
        line = node.start_mark.line
        for part in field:
            below = _child(node, part)
            if below is not None:
                line, node = below
                found.append(str(part))
        last = str(field[-1]) if field else ""
        if last and last.isidentifier() and found[-1:] != [last]:
            found.append(last)  # a field that is missing
        name = ".".join(found)
        one_line = " ".join(message.split())
        return ExperimentError(f"{self.path}, line {line + 1}, {name or 'the file'}: {one_line}")


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a mapping.

    Args:
        path: of the file.

    Returns:
        Its content, and where everything stands.

    Raises:
        ExperimentError: it cannot be read, is no YAML or no mapping, or a key stands twice.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ExperimentError(f"{path} is larger than 1 MiB: is it an experiment file?")
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise ExperimentError(f"{path} holds no fields: write name, data, methods and budget")
        lines = Lines(path, root)
        for field, key in _keys_that_stand_twice(root, (), set()):
            raise lines.error(field, f"{key} stands twice: remove one")
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ExperimentError(f"{path}, line {line}: {error.problem}: correct the YAML") from error
    except (OSError, ValueError, yaml.YAMLError, RecursionError, TypeError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ExperimentError(f"cannot read {path} ({reason}): check the file") from error


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    """Line and node of a key or index."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        below = node.value[part]
        return below.start_mark.line, below
    return None


def _keys_that_stand_twice(
    node: yaml.Node, field: tuple[str | int, ...], above: set[int]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if id(node) in above:
        raise ValueError("an alias that contains itself")
    below: list[tuple[str | int, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        keys = [str(key.value) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                yield (*field, key), key
                return
        below = [(str(key.value), value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        below = list(enumerate(node.value))
    for part, child in below:
        yield from _keys_that_stand_twice(child, (*field, part), above | {id(node)})
