"""YAML with line numbers, so that a mistake can be found where it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from samt.bench.errors import ExperimentError

_LARGEST = 1 << 18  # bytes
_MOST = 50_000  # fields and values, those that aliases repeat included
_LONGEST_NUMBER = 10_000  # characters
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class Lines:
    """Where each field of a file stands.

    Args:
        path: of the file.
        root: its tree of nodes.
    """

    def __init__(self, path: Path, root: yaml.Node) -> None:
        self.path = path
        self._root = root

    def place(self, field: Sequence[str | int]) -> tuple[int, tuple[str, ...]]:
        """Where a field stands.

        Args:
            field: keys and indices that lead there; those that do not exist in the file (pydantic
                names the types of a union, too) are left out.

        Returns:
            Its line, from 1, and the keys and indices that do exist.
        """
        node, found = self._root, []
        line = node.start_mark.line
        for part in field:
            below = _child(node, part)
            if below is not None:
                line, node = below
                found.append(str(part))
        return line + 1, tuple(found)

    def error(
        self, field: Sequence[str | int], message: str, missing: str | None = None
    ) -> ExperimentError:
        """An error that names file, line and field.

        Args:
            field: as of `place`.
            message: what is wrong, with its cure.
            missing: name of a field that should stand there.
        """
        line, found = self.place(field)
        return _error(self.path, line, [*found, *([missing] if missing else [])], message)


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Read a mapping.

    Args:
        path: of the file.

    Returns:
        Its content, and where everything stands.

    Raises:
        ExperimentError: it cannot be read, is no YAML or no mapping, or a key stands twice.
    """
    walk = _Walk(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise ExperimentError(
                f"{path} is larger than {_LARGEST >> 10} KiB: is it an experiment file?"
            )
        text = content.decode("utf-8")
        root = yaml.compose(text, Loader=_Loader)
        if not isinstance(root, yaml.MappingNode):
            raise ExperimentError(f"{path} holds no fields: write name, data, methods and budget")
        walk.visit(root, (), set())
        return yaml.load(text, Loader=_Loader), Lines(path, root)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _error(path, line, [], "this is not UTF-8: save the file as UTF-8") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        message = f"YAML allows no character U+{error.character:04X}: remove it"
        raise _error(path, line, [], message) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        found = walk.fields.get((mark.line, mark.column), ())
        raise _error(path, mark.line + 1, found, f"{error.problem}: correct the YAML") from error
    except RecursionError as error:
        raise ExperimentError(f"{path} is nested too deeply: write it flat") from error
    except OSError as error:
        raise ExperimentError(f"cannot read {path} ({error.strerror}): check the file") from error


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Numbers as in YAML 1.2, where 1e-3 is one; and every mistake has a line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        # In base 60, which YAML has, its time is quadratic.
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _LONGEST_NUMBER:
            raise _constructor_error(node, "this number is too large")
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError) as error:
            kind = node.tag.rsplit(":", 1)[-1]
            raise _constructor_error(node, f"this cannot be read as {kind}") from error
        if isinstance(value, int) and abs(value) >= 1 << 63:
            raise _constructor_error(node, "this number is too large")
        return value


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+"),
    list("-+.0123456789"),
)


class _Walk:
    """Looks at every field once, and at what aliases repeat each time.

    Attributes:
        fields: what stands at a line and column.
    """

    def __init__(self, path: Path) -> None:
        self.fields: dict[tuple[int, int], tuple[str, ...]] = {}
        self._path = path
        self._seen = 0

    def visit(self, node: yaml.Node, field: tuple[str, ...], above: set[int]) -> None:
        """Refuse what YAML allows and an experiment file must not have.

        Raises:
            ExperimentError: a key stands twice or is no text, a text is none, an alias contains
                itself, or there is too much.
        """
        self.fields.setdefault((node.start_mark.line, node.start_mark.column), field)
        self._seen += 1
        if self._seen > _MOST:
            raise self._error(node, field, f"the file has more than {_MOST} values: shorten it")
        if id(node) in above:
            raise self._error(node, field, "this alias contains itself: write out what it is")
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node, field)
            below = [(key.value, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            below = [(str(index), value) for index, value in enumerate(node.value)]
        else:
            if not _is_text(node.value):
                raise self._error(node, field, "half a surrogate pair is no text: remove it")
            return
        for part, child in below:
            self.visit(child, (*field, part), above | {id(node)})

    def _check_keys(self, node: yaml.MappingNode, field: tuple[str, ...]) -> None:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, field, "a list or mapping is no name of a field: write one")
            if not _is_text(key.value):
                raise self._error(key, field, "half a surrogate pair is no text: remove it")
            if key.tag not in (_TEXT, _MERGE):
                raise self._error(key, field, f"'{key.value}' is no text to YAML: put it in quotes")
            if key.value in seen:
                raise self._error(key, (*field, key.value), f"{key.value} stands twice: remove one")
            seen.add(key.value)

    def _error(self, node: yaml.Node, field: tuple[str, ...], message: str) -> ExperimentError:
        return _error(self._path, node.start_mark.line + 1, field, message)


def _error(path: Path, line: int, field: Sequence[str], message: str) -> ExperimentError:
    one_line = " ".join(message.split())
    name = " ".join(".".join(field).split())
    return ExperimentError(f"{path}, line {line}, {name or 'the file'}: {one_line}")


def _constructor_error(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    """Line and node of a key or index."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line, value
        for key, value in node.value:
            if key.tag == _MERGE:
                merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
                return next((below for one in merged if (below := _child(one, part))), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        below = node.value[part]
        return below.start_mark.line, below
    return None
