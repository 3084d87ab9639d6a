"""Seeded worlds. `--worlds N` plays more of them, `--world SEED` one again, as a failure tells."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.simulation import clock
from tests.simulation.check import check
from tests.simulation.disk import Faults
from tests.simulation.world import Terms, Twists, World

BATCH = 25
SERVERS_MAX = 3
WORLDS_APART = 1_000_000
"""A run that goes on elsewhere goes on in the world so many seeds further."""


def faults_of(seed: int) -> Faults:
    """Every fourth world is calm, so that what trouble hides is seen too."""
    chance = random.Random(seed)
    if seed % 4 == 0:
        return Faults()
    return Faults(
        unavailable=chance.choice([0, 0.05, 0.2]),
        in_doubt=chance.choice([0, 0.05, 0.2]),
        late=chance.choice([0, 0.3]),
        kill=chance.choice([0, 0.02, 0.05]),
    )


def twists_of(seed: int) -> Twists:
    """Most worlds have one or two."""
    chance = random.Random(f"twists {seed}")
    feed_bytes = chance.choice([262_144, 262_144, 1_500, 500])
    if seed % 4 == 0:
        return Twists(feed_bytes=feed_bytes)
    overlap = chance.choice([0, 0, 0, 0.4])
    return Twists(
        drain=chance.choice([0, 0, 0.4]),
        overlap=overlap,
        old_disk=chance.choice([0, 0, 0, 0.3]),
        deletion=chance.random() < 0.15,
        pause=chance.choice([8, 8, 8, 1]),
        drain_seconds=chance.choice([5, 0.2]),
        feed_bytes=feed_bytes,
        crashes_max=1_000 if overlap else chance.choice([1_000, 1_000, 3]),
        snapshots=random.Random(f"snapshots {seed}").choice([20_000, 20_000, 20_000, 5, 40]),
    )


def terms_of(seed: int) -> Terms:
    """Half of the worlds have agents inside agents; each limit is in force in some."""
    chance = random.Random(f"terms {seed}")
    objects = chance.random() < 0.35
    context = random.Random(f"context {seed}")
    window = context.choice([None, None, 1_800, 3_000])
    return Terms(
        depth=chance.choice([1, 1, 1, 2, 2, 3]),
        asking=chance.random() < 0.3,
        stern=chance.random() < 0.2,
        steps_max=chance.choice([12, 12, 12, 5]),
        tokens_max=chance.choice([None, None, None, None, 60]),
        turns=chance.choice([None, None, None, None, 3]),
        slice_ms=chance.choice([None, None, None, 2_000]),
        retry_ms=chance.choice([20_000, 20_000, 1_500]),
        objects=objects,
        moves=objects and chance.random() < 0.35,
        window=window,
        takes=context.choice([None, window * 3, window * 3 // 2]) if window else None,
        notes=context.random() < 0.4,
    )


def play(seed: int, twists: Twists | None = None, terms: Terms | None = None) -> World:
    """Plays one world to its end and checks it; with the seed's own twists and terms unless others are given.

    A run that was taken away goes on in a world of its own, with the same people, model and tools.
    """
    twists, terms = twists or twists_of(seed), terms or terms_of(seed)
    if twists.old_disk:  # an older disk holds the run that was taken from it, and goes on with it
        terms = replace(terms, moves=False)
    world = World(seed, faults_of(seed), twists, terms)

    async def story() -> None:
        nonlocal world
        await world.run()
        await check(world)
        while world.taken is not None:
            await world.close()
            again = seed + WORLDS_APART * len(world.name)
            here = replace(world.terms, moves=len(world.name) < SERVERS_MAX)
            world = World(again, faults_of(again), world.twists, here, before=world)
            await world.run()
            await check(world)

    try:
        clock.run(story())
    except BaseException:
        print(f"\nplay it again: pytest tests/simulation/test_simulation.py --world {seed}")
        raise
    return world


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--world")
    worlds = metafunc.config.getoption("--worlds")
    seeds = [range(one, one + 1)] if one is not None else [range(n, n + BATCH) for n in range(0, worlds, BATCH)]
    metafunc.parametrize("seeds", seeds, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")


def test_worlds(seeds: range) -> None:
    """P1-P8 in every world; FAULTS 85 in those with a small window."""
    for seed in seeds:
        play(seed)
