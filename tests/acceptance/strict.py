"""What a strict Chat Completions provider refuses in a request. Pure; `complaints(body)` is empty for a right one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
JSON_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def complaints(body: Json) -> list[str]:
    """Everything wrong with a request."""
    found = []
    if not isinstance(body.get("model"), str) or not body["model"]:
        found.append("no model")
    if body.get("stream_options") and not body.get("stream"):
        found.append("stream_options without stream")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return [*found, "no messages"]
    for number, message in enumerate(messages):
        found += [f"messages[{number}]: {wrong}" for wrong in _message(message)]
    if not found:
        found += _pairs(messages)
        if messages[-1]["role"] not in ("user", "tool"):
            found.append(f"the last message is of {messages[-1]['role']}")
    return found + _tools(body.get("tools"))


def _message(message: Any) -> list[str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        return [f"no message with a valid role: {message!r:.100}"]
    role, content = message["role"], message.get("content")
    if role == "assistant":
        return _assistant(message)
    if "tool_calls" in message:
        return [f"tool_calls on a message of {role}"]
    if role == "tool":
        found = [] if isinstance(message.get("tool_call_id"), str) else ["a tool message without tool_call_id"]
        return found + ([] if _is_text(content) or content == "" else ["the content of a tool message is no text"])
    return [] if _is_text(content) else [f"the content of a message of {role} is no text, or empty"]


def _assistant(message: Json) -> list[str]:
    calls, content = message.get("tool_calls"), message.get("content")
    if calls is None:
        return [] if _is_text(content) else ["an empty assistant message"]
    if not isinstance(calls, list) or not calls:
        return ["tool_calls is empty or no list"]
    found = [] if content is None or _is_text(content) else ["assistant content is neither null nor text"]
    for call in calls:
        function = call.get("function", {})
        if not isinstance(call.get("id"), str) or not call["id"] or call.get("type") != "function":
            found.append(f"no tool call: {call!r:.100}")
        if not NAME.fullmatch(str(function.get("name", ""))):
            found.append(f"name of a tool call: {function.get('name')!r:.100}")
        if not _is_object_text(function.get("arguments")):
            found.append(f"arguments are no JSON object: {function.get('arguments')!r:.100}")
    ids = [call.get("id") for call in calls]
    return found + ([] if len(set(ids)) == len(ids) else [f"equal call ids in one message: {ids}"])


def _pairs(messages: Sequence[Json]) -> list[str]:
    """Calls are followed at once by exactly one result each, and results stand nowhere else."""
    asked = [call["id"] for message in messages for call in message.get("tool_calls", [])]
    found: list[str] = [] if len(set(asked)) == len(asked) else [f"call ids repeat: {asked}"]
    waiting: list[str] = []
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] in waiting:
                waiting.remove(message["tool_call_id"])
            else:
                found.append(f"messages[{number}]: result of {message['tool_call_id']}, which is not waiting for one")
            continue
        if waiting:
            found.append(f"messages[{number}]: calls {waiting} have no result before it")
        waiting = [call["id"] for call in message.get("tool_calls", [])]
    return found + ([f"calls {waiting} have no result"] if waiting else [])


def _tools(tools: Any) -> list[str]:
    if tools is None:
        return []
    if not isinstance(tools, list) or not tools:
        return ["tools is empty or no list"]
    found: list[str] = []
    for tool in tools:
        function = tool.get("function", {}) if tool.get("type") == "function" else {}
        name, parameters = function.get("name"), function.get("parameters")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            found.append(f"no tool: {tool!r:.100}")
        elif not isinstance(function.get("description", ""), str):
            found.append(f"description of {name}")
        elif not isinstance(parameters, dict) or parameters.get("type") != "object":
            found.append(f"parameters of {name} are no object schema")
        else:
            found += [f"parameters of {name}: {wrong}" for wrong in _schema(parameters)]
    names = [tool.get("function", {}).get("name") for tool in tools]
    return found + ([] if len(set(names)) == len(names) else [f"equal tool names: {names}"])


def _schema(schema: Any) -> list[str]:
    if not isinstance(schema, dict):
        return [f"no schema: {schema!r:.100}"]
    types = schema.get("type", [])
    found = [f"type {kind!r}" for kind in ([types] if isinstance(types, str) else types) if kind not in JSON_TYPES]
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        return [*found, "properties is no object"]
    found += [f"required {name!r} is no property" for name in schema.get("required", []) if name not in properties]
    inner = [*properties.values(), *schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]
    return found + [wrong for part in inner for wrong in _schema(part)]


def _is_text(content: Any) -> bool:
    if isinstance(content, list):
        return bool(content) and all(part.get("type") == "text" and part.get("text") for part in content)
    return isinstance(content, str) and content != ""


def _is_object_text(arguments: Any) -> bool:
    try:
        return isinstance(arguments, str) and isinstance(json.loads(arguments), dict)
    except ValueError:
        return False
