"""`python -m app check`: every model request that was sent is built again from the log alone, and compared.

It only reads, beside a running server too, and knows no agents: what it says holds for whoever has the data directory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.core.codec import canonical
from app.core.errors import Corrupt, HoldfastError
from app.core.events import CompactionStarted
from app.core.rebuild import Rebuilding, Rebuilt
from app.core.request import plain
from app.settings import SettingError, read
from app.store.log_sqlite_readonly import ReadOnlyLog


@dataclass
class Found:
    """What came of one log, or of all: attempts by how their request was found, and damaged logs."""

    equal: int = 0
    without: int = 0
    different: int = 0
    damaged: int = 0

    @property
    def sound(self) -> bool:
        return not (self.different or self.damaged)


def check(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """The exit code: 0 = every request is what the log says, 1 = one is not, or a log is damaged or not there."""
    parser = argparse.ArgumentParser(
        prog="holdfast check", description="Rebuilds from the log every request that a model was sent, and compares."
    )
    parser.add_argument("conversations", nargs="*", metavar="CONVERSATION", help="only these; default: all")
    parser.add_argument("--data", help="instead of HOLDFAST_DATA")
    parser.add_argument(
        "--show", type=int, metavar="SEQ", help="print the request that began with this event, as it is hashed"
    )
    given = parser.parse_args(arguments)
    if given.show is not None and len(given.conversations) != 1:
        parser.error("--show wants exactly one CONVERSATION")
    try:
        directory = Path(given.data) if given.data else read(environ).data
        with ReadOnlyLog.open(directory) as log:
            if given.show is not None:
                return _show(log, given.conversations[0], given.show)
            return _compare(log, given.conversations or log.conversations())
    except (SettingError, HoldfastError) as error:
        sys.stderr.write(f"holdfast: {error}\n")
    except KeyError as error:
        sys.stderr.write(f"holdfast: there is no conversation {error.args[0]}\n")
    return 1


def _attempts(log: ReadOnlyLog, conversation: str) -> Iterator[Rebuilt]:
    rebuilding = Rebuilding()
    for text in log.texts(conversation):
        if (rebuilt := rebuilding.take(text)) is not None:
            yield rebuilt


def _compare(log: ReadOnlyLog, conversations: Sequence[str]) -> int:
    whole = Found()
    for conversation in conversations:
        found, faults = _look(log, conversation)
        _say(f"{conversation}  {'ok' if found.sound else 'NOT OK'}  {_figures(found)}")
        for fault in faults:
            _say(f"    {fault}")
        whole.equal += found.equal
        whole.without += found.without
        whole.different += found.different
        whole.damaged += found.damaged
    damaged = f", {whole.damaged} damaged" if whole.damaged else ""
    _say(f"conversations: {len(conversations)}{damaged}; {_figures(whole)}")
    return 0 if whole.sound else 1


def _look(log: ReadOnlyLog, conversation: str) -> tuple[Found, list[str]]:
    """One log up to where it is damaged, and what is wrong with it."""
    found, faults = Found(), []
    try:
        for rebuilt in _attempts(log, conversation):
            if rebuilt.request is None:
                found.without += 1
            elif rebuilt.equal:
                found.equal += 1
            else:
                found.different += 1
                event = rebuilt.event
                what = "a summary" if isinstance(event, CompactionStarted) else f"step {event.step}"
                where = f" of {'/'.join(event.path)}" if event.path else ""
                faults.append(f"seq {event.seq}: {what}, attempt {event.attempt}{where} asked something else")
    except Corrupt as error:
        found.damaged = 1
        faults.append(str(error))
    return found, faults


def _figures(found: Found) -> str:
    told = f"{found.equal} requests rebuilt and equal"
    told += f", {found.different} DIFFERENT" if found.different else ""
    return told + (f", {found.without} without a digest" if found.without else "")


def _show(log: ReadOnlyLog, conversation: str, seq: int) -> int:
    for rebuilt in _attempts(log, conversation):
        if rebuilt.event.seq == seq and (request := rebuilt.request) is not None:
            _say(canonical(plain(request)).decode())
            return 0 if rebuilt.equal else 1
    sys.stderr.write(f"holdfast: {conversation} has no request with a digest at seq {seq}\n")
    return 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
