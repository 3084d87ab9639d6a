"""`Continuation`: a suspended run in the hands of an application: look at it, answer, pass it on (SEMANTICS.md §6).

Only its shape is known here. Whether it is what left its server is found out where it comes back (continuation.py);
what becomes of the answers is decided there, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from app.core.bounds import DEPTH_MAX
from app.core.calls import parse_arguments
from app.core.codec import to_json
from app.core.errors import Rejected
from app.core.events import Json

VERSION = 1


class Ours(msgspec.Struct, frozen=True):
    """What stands under `holdfast`. `kept`: texts that were too large for their events, by name."""

    version: int
    conversation: str
    log: str
    seq: int
    run: str
    agent: str
    taken: bool
    digests: dict[str, str]
    events: list[str]
    key: str
    signature: str
    kept: dict[str, str] = {}


class Info(msgspec.Struct, frozen=True):
    """One entry of `approval_info`."""

    paths: list[str]
    path_ids: list[str]
    tool_call: Json
    approved: bool | None = None


def parse(returned: Json) -> tuple[Ours, list[Info]]:
    """The parts of an object that this house goes by. Raises Rejected bad_command for what has another shape."""
    ours = returned.get("holdfast")
    if not isinstance(ours, dict) or not isinstance(returned.get("continuation"), dict):
        raise Rejected("bad_command", "This is no continuation of Holdfast: `holdfast` is missing.")
    if ours.get("version") != VERSION:
        raise Rejected("bad_command", f"This continuation is of version {ours.get('version')!r}; here is {VERSION}.")
    try:
        found = msgspec.convert(ours, Ours), msgspec.convert(returned.get("approval_info"), list[Info])
    except msgspec.ValidationError as error:
        raise Rejected("bad_command", f"This continuation is not of the documented shape: {error}.") from None
    if any(not 0 < len(info.path_ids) <= DEPTH_MAX + 1 for info in found[1]):
        raise Rejected("bad_command", f"A path of call ids has 1 to {DEPTH_MAX + 1} of them.")
    return found


@dataclass(frozen=True, slots=True)
class Approval:
    """One call that asks for a decision. `approved` None: it is open.

    `paths` are the names of the tools that lead to it, `path_ids` the ids of these calls, its own last in both;
    `arguments` are what the model wrote, as an object ({} where that is none), `tool_call` is its exact text.
    """

    paths: tuple[str, ...]
    path_ids: tuple[str, ...]
    tool: str
    arguments: Json
    tool_call: Json
    approved: bool | None


class Continuation:
    """A suspended run as a value, made from the object that a server gave. Raises Rejected where it is none.

    Answers are kept in here until `to_json` writes them into the object; nothing else of it is ever changed.
    """

    def __init__(self, exported: Json) -> None:
        self._ours, infos = parse(exported)
        self._exported = exported
        self._infos: dict[tuple[str, ...], Info] = {tuple(info.path_ids): info for info in infos}
        self._answers = {path_ids: info.approved for path_ids, info in self._infos.items()}

    @classmethod
    def from_json(cls, text: str | bytes) -> Continuation:
        """Raises Rejected bad_json, bad_command."""
        try:
            exported = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            raise Rejected("bad_json", "This is not valid JSON.") from None
        if not isinstance(exported, dict):
            raise Rejected("bad_json", "This is not a JSON object.")
        return cls(exported)

    def to_json(self) -> str:
        """The object with the answers, as text."""
        return to_json(self.to_object())

    def to_object(self) -> Json:
        """The object with the answers; shares what was not answered with what it was made from."""
        infos: list[dict[str, Any]] = self._exported["approval_info"]
        answered = [{**info, "approved": self._answers[tuple(info["path_ids"])]} for info in infos]
        return {**self._exported, "approval_info": answered}

    # --- looking

    @property
    def run(self) -> str:
        return self._ours.run

    @property
    def conversation(self) -> str:
        """Where it was exported."""
        return self._ours.conversation

    @property
    def agent(self) -> str:
        return self._ours.agent

    @property
    def taken(self) -> bool:
        """Whether the run has ended where it was, so that it may go on elsewhere."""
        return self._ours.taken

    @property
    def end_reason(self) -> str:
        return str(self._exported.get("end_reason"))

    @property
    def suspend_list(self) -> list[str]:
        """Why it is suspended, where that is not for an approval."""
        return [str(reason) for reason in self._exported.get("suspend_list", [])]

    @property
    def messages(self) -> list[Json]:
        """The messages of the top level."""
        return list(self._exported["continuation"].get("messages", []))

    @property
    def approvals(self) -> tuple[Approval, ...]:
        """All that was open when it was exported, with the answers so far."""
        return tuple(_approval(info, self._answers[path_ids]) for path_ids, info in self._infos.items())

    @property
    def pending(self) -> tuple[Approval, ...]:
        """What has no answer yet, and stays open without one."""
        return tuple(approval for approval in self.approvals if approval.approved is None)

    # --- answering

    def approve(self, path_ids: Sequence[str]) -> None:
        """The call with this path of ids may run. Raises Rejected no_such_approval."""
        self._answer(path_ids, True)

    def deny(self, path_ids: Sequence[str]) -> None:
        """The call may not run, and its model is told so. Raises Rejected no_such_approval."""
        self._answer(path_ids, False)

    def decide(self, answers: Mapping[tuple[str, ...], bool | None]) -> None:
        """Several at once; None takes an answer back. Raises Rejected no_such_approval, then nothing is answered."""
        for path_ids in answers:
            self._check(path_ids)
        self._answers.update(answers)

    def _answer(self, path_ids: Sequence[str], approved: bool) -> None:
        self.decide({tuple(path_ids): approved})

    def _check(self, path_ids: tuple[str, ...]) -> None:
        if path_ids not in self._infos:
            raise Rejected("no_such_approval", f"No approval is open under {'/'.join(map(str, path_ids))[:200]}.")

    def __repr__(self) -> str:
        return f"<continuation of run {self.run}, {len(self.pending)} pending>"


def _approval(info: Info, approved: bool | None) -> Approval:
    function = info.tool_call.get("function")
    function = function if isinstance(function, dict) else {}
    try:
        arguments = parse_arguments(str(function.get("arguments", "")))
    except ValueError:
        arguments = {}
    return Approval(
        paths=tuple(info.paths),
        path_ids=tuple(info.path_ids),
        tool=str(function.get("name", "")),
        arguments=arguments,
        tool_call=info.tool_call,
        approved=approved,
    )
