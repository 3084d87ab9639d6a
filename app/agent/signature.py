"""From a typed Python function to what a model may call: description, JSON schema, validation.

Pure functions of the declaration and the arguments; the function itself is never called here. Parameters become the
fields of a pydantic model under internal names with the real ones as aliases, so that a parameter may be called
`schema`, `copy` or `model_config` without clashing with pydantic's own attributes.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from app.agent.context import BadArguments, ConfigError, ToolContext
from app.core.events import Json

MISTAKES_MAX = 5
SHOWN_CHARS_MAX = 80

_GOOGLE_SECTION = re.compile(r"^(?:args|arguments|parameters):\s*$", re.IGNORECASE)
_GOOGLE_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_SPHINX_ENTRY = re.compile(r"^:param\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)$")


class Signature:
    """What can be said about a call of `function` without calling it. Raises ConfigError when it cannot be a tool."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        self.context_parameter: str | None = None
        fields: dict[str, Any] = {}
        self._fields: dict[str, str] = {}  # internal name → parameter
        text = inspect.getdoc(plain(function)) or ""
        described = parameter_descriptions(text)
        for parameter, annotation in _parameters(function, name):
            if _is_context(parameter, annotation):
                self.context_parameter = parameter.name
                continue
            internal = f"p{len(fields)}"
            self._fields[internal] = parameter.name
            field: dict[str, Any] = {"alias": parameter.name}
            if parameter.name in described:
                field["description"] = described[parameter.name]
            if parameter.default is not inspect.Parameter.empty:
                field["default"] = parameter.default
            fields[internal] = (annotation, Field(**field))
        try:
            self._model: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
            parameters = self._model.model_json_schema(schema_generator=_WithoutTitles)
        except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as error:
            raise ConfigError(f"Tool {name}: a parameter has a type that JSON cannot carry: {_first(error)}") from error
        parameters.pop("title", None)
        parameters.pop("description", None)
        described_as = {"name": name, "description": summary(text), "parameters": parameters}
        self.schema: Json = {"type": "function", "function": described_as}

    def parse(self, arguments: Json) -> dict[str, Any]:
        """The validated arguments by parameter, defaults filled in. Raises BadArguments, or what a validator of
        the tool's author raises."""
        try:
            valid = self._model.model_validate(arguments)
        except ValidationError as error:
            raise BadArguments(self._explain(error)) from error
        return {parameter: getattr(valid, internal) for internal, parameter in self._fields.items()}

    def _explain(self, error: ValidationError) -> str:
        mistakes = error.errors(include_url=False, include_context=False)
        told = [self._mistake(mistake) for mistake in mistakes[:MISTAKES_MAX]]
        if len(mistakes) > MISTAKES_MAX:
            told.append(f"and {len(mistakes) - MISTAKES_MAX} more")
        return f"The arguments of {self._name} are not valid: {'; '.join(told)}."

    def _mistake(self, mistake: Mapping[str, Any]) -> str:
        where = ".".join(str(part) for part in mistake["loc"])[:SHOWN_CHARS_MAX]
        if mistake["type"] == "extra_forbidden" and len(mistake["loc"]) == 1:
            known = ", ".join(self._fields.values()) or "no arguments"
            return f"{where} is unknown ({self._name} takes {known})"
        if mistake["type"] == "missing":
            return f"{where} is missing"
        return f"{where}: {mistake['msg']} (got {_shown(mistake['input'])})"


def plain(function: Callable[..., Any]) -> Any:
    """The function under decorators and `functools.partial`."""
    bare: Any = function
    while isinstance(bare, functools.partial) or hasattr(bare, "__wrapped__"):
        bare = bare.func if isinstance(bare, functools.partial) else bare.__wrapped__
    return bare


def summary(docstring: str) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join(docstring.strip().split("\n\n", 1)[0].split())


def parameter_descriptions(docstring: str) -> dict[str, str]:
    """What a Google-style `Args:` section or Sphinx-style `:param name:` lines say, by parameter."""
    found: dict[str, str] = {}
    section_indent = entry_indent = -1
    name = ""
    for line in docstring.splitlines():
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if sphinx := _SPHINX_ENTRY.match(text):
            name, entry_indent = sphinx[1], indent
            found[name] = sphinx[2]
        elif _GOOGLE_SECTION.match(text):
            section_indent, entry_indent, name = indent, -1, ""
        elif not text or (name and indent > entry_indent):
            if text:
                found[name] = f"{found[name]} {text}".strip()
        elif section_indent >= 0 and indent > section_indent and (google := _GOOGLE_ENTRY.match(text)):
            name, entry_indent = google[1], indent
            found[name] = google[2]
        else:
            section_indent, name = -1, ""
    return {name: text for name, text in found.items() if text}


class _WithoutTitles(GenerateJsonSchema):
    """pydantic's schema without the titles that it makes up, which cost tokens and say nothing."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _parameters(function: Callable[..., Any], name: str) -> list[tuple[inspect.Parameter, Any]]:
    """Each parameter with its annotation, string annotations resolved."""
    bare = plain(function)
    if inspect.isclass(bare):
        raise ConfigError(f"Tool {name}: a tool is a function, not a class.")
    written = bare if inspect.isroutine(bare) else type(bare).__call__
    given = {key: value for key, value in getattr(written, "__annotations__", {}).items() if key != "return"}
    try:
        signature = inspect.signature(function)
        source = SimpleNamespace(__annotations__=given)  # what is returned need not be known
        hints = typing.get_type_hints(source, getattr(written, "__globals__", {}), include_extras=True)
    except (NameError, TypeError, ValueError, SyntaxError, AttributeError) as error:
        raise ConfigError(f"Tool {name}: its annotations cannot be read: {_first(error)}") from error
    allowed = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for parameter in signature.parameters.values():
        if parameter.kind not in allowed:
            raise ConfigError(f"Tool {name}: every parameter needs a name that a model can use, {parameter} has none.")
    return [(parameter, hints.get(parameter.name, Any)) for parameter in signature.parameters.values()]


def _is_context(parameter: inspect.Parameter, annotation: Any) -> bool:
    if annotation is Any:
        return parameter.name == "ctx"
    return annotation is ToolContext or ToolContext in typing.get_args(annotation)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"


def _first(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
