"""The process of the reference world is killed once at every place, and P1-P7 hold each time.

Every commit boundary, before and after: always; and once more at the boundaries that follow, inside the recovery.
Every callback of the event loop, which is every await of every task: all of them with `--kills-everywhere`, else every
so many, another set each time the story changes.
"""

from __future__ import annotations

import pytest

from tests.simulation import clock
from tests.simulation.check import check
from tests.simulation.reference import Reference

SLICES = 8
STEPS_PLAYED = 320
EPILOGUE = 20
"""After the end of the story nobody boots again."""

AGAIN = (1, 2)
"""A second kill so many boundaries after the first."""


def play(**where: int) -> Reference:
    """Plays the story with a kill there and checks it."""
    world = Reference(**where)

    async def story() -> None:
        await world.run()
        await check(world)

    try:
        clock.run(story(), world.stepped)
    except BaseException:
        print(f"\nkilled at {where}")
        raise
    return world


@pytest.fixture(scope="module")
def unharmed() -> Reference:
    """The story without a kill: how many places there are."""
    return play()


def test_the_story_has_everything(unharmed: Reference) -> None:
    """A reference that lost its parts would prove nothing."""
    seen = "".join(unharmed.clients[0].seen.values())
    for part in (
        "hint.applied",
        "approval.decided",
        "cancel.requested",
        "tool.settled",
        "prompt.queued",
        "run.cancelled",
    ):
        assert f'"type":"{part}"' in seen, part
    assert unharmed.disk.snapshot(unharmed.conversation) is not None, "one is written beside the actor at work"
    assert unharmed.starts == 1 and unharmed.boundaries > 60 and unharmed.steps > 500
    print(f"{unharmed.boundaries} commit boundaries, {unharmed.steps} callbacks")


@pytest.mark.parametrize("again", [None, *AGAIN])
def test_a_kill_at_every_commit_boundary(unharmed: Reference, again: int | None) -> None:
    """FAULTS 1, 2, 3, 9, 10, 29: before and after each commit, snapshots included, those that the recovery writes too;
    with `again` a second kill while the first is recovered."""
    for boundary in range(1, unharmed.boundaries + 1):
        world = play(boundary=boundary, **({} if again is None else {"again": again}))
        assert world.starts >= 2, "nobody was killed"


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("part", range(SLICES))
def test_a_kill_between_any_two_callbacks(unharmed: Reference, part: int, request: pytest.FixtureRequest) -> None:
    """FAULTS 4, 5, 6, 7, 8, 9: in the middle of a model stream, a tool, an approval, a recovery of readers, a flush."""
    apart = 1 if request.config.getoption("--kills-everywhere") else max(1, unharmed.steps // STEPS_PLAYED)
    worlds = [play(step=step) for step in list(range(2, unharmed.steps - EPILOGUE, apart))[part::SLICES]]
    assert all(world.starts >= 2 for world in worlds), "somebody was not killed"
