"""Batches and deadlines, with a policy that says how long it takes."""

import asyncio
import time

import pytest

from lastr1.serve.batcher import Batcher, Cost, Costs, Failed, Late


def test_costs_by_hand():
    """Alone 10, 20, 30 ms; each further request 1, 2, 3 ms."""
    found = Costs({k: Cost(alone=0.01 * k, further=0.001 * k) for k in (1, 2, 3)})
    assert found.seconds(2, 1) == pytest.approx(0.02)
    assert found.seconds(3, 11) == pytest.approx(0.03 + 10 * 0.003)
    assert (found.shortest(1), found.shortest(11), found.hopeless()) == pytest.approx((0.01, 0.02, 0.01))
    # alone: 30, 20 and 10 ms; 11 together: 60, 40 and 20 ms
    assert [found.cap(left, 1) for left in (1.0, 0.031, 0.029, 0.011, 0.001, -1.0)] == [3, 3, 2, 1, 1, 1]
    assert [found.cap(left, 11) for left in (0.061, 0.059, 0.039)] == [3, 2, 1]


def test_a_slow_machine_is_noticed_and_forgotten():
    found = Costs({k: Cost(alone=0.01 * k, further=0.0) for k in (1, 2)})
    found.note(2, 5, 0.04)  # twice what it takes on a quiet machine: true of every length
    assert found.seconds(1, 1) == pytest.approx(0.02)
    assert found.cap(0.03, 1) == 1
    for _ in range(32):
        found.note(1, 1, 0.01)
    assert found.cap(0.03, 1) == 2


def test_prudence_by_hand():
    """Of 10 ratios 1..10 the entry at int(0.9 * 10) counts, the largest."""
    found = Costs({1: Cost(alone=1.0, further=0.0)})
    for ratio in range(1, 11):
        found.note(1, 1, float(ratio))
    assert found.seconds(1, 1) == 10.0
    for ratio in range(1, 11):
        found.note(1, 1, float(ratio))
    assert found.seconds(1, 1) == 10.0  # of 20 the 19th


def test_without_thoughts():
    found = Costs({0: Cost(alone=0.01, further=0.0)})
    assert (found.cap(1.0, 1), found.cap(0.0, 1), found.shortest(1)) == (0, 0, 0.01)


def test_what_is_hopeless_is_tried_again():
    """The best of late counts; turned away thrice, an eighth of it is believed, until one was decided."""
    found = Costs({1: Cost(alone=1.0, further=0.0)})
    found.note(1, 1, 4.0)
    found.note(1, 1, 2.0)
    assert found.hopeless() == 2.0
    for _ in range(3):
        found.doubt()
    assert found.hopeless() == 0.25
    found.note(1, 1, 3.0)
    assert found.hopeless() == 2.0


class World:
    """A batcher that decides from the beginning of the block (or from `go`) to its end."""

    def __init__(self, thinker, costs, *, largest=8, waits=False):
        self.thinker, self.batcher = thinker, Batcher(thinker, costs, largest)
        self.started = asyncio.Event()
        if not waits:
            self.go()

    def go(self):
        self.started.set()

    async def run(self):
        await self.started.wait()
        await self.batcher.run()

    async def __aenter__(self):
        self.running = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_):
        self.thinker.gate.set()
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def ask(self, observation, seconds=60.0, firm=True):
        """A task; the request has arrived."""
        due = time.perf_counter() + seconds
        task = asyncio.create_task(self.batcher.decide(observation, due, firm=firm))
        await asyncio.sleep(0)
        return task

    async def busy(self, observation):
        """One request under way, until the gate opens."""
        self.thinker.gate.clear()
        first = await self.ask(observation)
        await asyncio.to_thread(self.thinker.entered.wait, 10)
        return first


def test_what_gathers_is_decided_together(thinker, costs, observations):
    seen = observations(5)

    async def scene():
        async with World(thinker, costs()) as world:
            first = await world.busy(seen[0])
            others = [await world.ask(o) for o in seen[1:]]
            thinker.gate.set()
            return await asyncio.gather(first, *others)

    answers = asyncio.run(scene())
    assert thinker.calls == [(1, 4), (4, 4)]
    assert [a.batch for a in answers] == [1, 4, 4, 4, 4]
    for answer, o in zip(answers, seen, strict=True):
        assert answer.chunk.actions[0, 0] == pytest.approx(o.images["camera0"][0, 0, 0] / 255)
    assert answers[1].queue_s > 0


def test_a_moment_for_those_who_have_not_asked(thinker, costs, observations):
    """The second client is waited for (up to 0.1 of 1000 s), the third is not: it takes no more than two."""
    seen = observations(3)

    async def scene():
        async with World(thinker, costs(1000.0), largest=2) as world:
            world.batcher.clients = 3
            first = await world.ask(seen[0], 1e6)
            await asyncio.sleep(0.05)
            assert not thinker.calls
            await asyncio.gather(first, await world.ask(seen[1], 1e6))
            world.batcher.clients = 1
            await (await world.ask(seen[2], 1e6))

    asyncio.run(asyncio.wait_for(scene(), 10))
    assert [size for size, _ in thinker.calls] == [2, 1]


def test_no_batch_is_larger_than_allowed(thinker, costs, observations):
    seen = observations(6)

    async def scene():
        async with World(thinker, costs(), largest=2) as world:
            first = await world.busy(seen[0])
            others = [await world.ask(o) for o in seen[1:]]
            thinker.gate.set()
            await asyncio.gather(first, *others)

    asyncio.run(scene())
    assert [size for size, _ in thinker.calls] == [1, 2, 2, 1]


def test_the_most_urgent_come_first_and_cut_the_thought(thinker, costs, observations):
    """A group takes 10 s (so it is said): 25 s are enough for two."""
    seen = observations(3)

    async def scene():
        async with World(thinker, costs(10.0), largest=2, waits=True) as world:
            patient = [await world.ask(o, 3600.0) for o in seen[:2]]
            urgent = await world.ask(seen[2], 25.0)
            world.go()
            await asyncio.gather(urgent, *patient)
            return urgent.result(), [p.result() for p in patient]

    urgent, patient = asyncio.run(scene())
    assert (urgent.cap, urgent.groups, urgent.batch) == (2, 2, 2)
    assert [p.batch for p in patient] == [2, 1]
    assert [p.cap for p in patient] == [2, 4]


def test_a_firm_deadline_that_cannot_be_met(thinker, costs, observations):
    seen = observations(2)

    async def scene():
        async with World(thinker, costs(10.0)) as world:
            with pytest.raises(Late, match="a decision takes 10000 ms, "):
                await (await world.ask(seen[0], 5.0))
            return await (await world.ask(seen[1], 5.0, firm=False))

    answer = asyncio.run(scene())
    assert answer.cap == 1
    assert thinker.calls == [(1, 1)]


def test_a_server_that_was_measured_on_a_bad_day(thinker, costs, observations):
    """A decision takes no time, not 10 s: whoever asks for 1 s is served after a few refusals."""
    (seen,) = observations(1)

    async def scene():
        refusals = 0
        async with World(thinker, costs(10.0)) as world:
            while True:
                try:
                    return refusals, await (await world.ask(seen, 1.0))
                except Late:
                    refusals += 1

    refusals, _ = asyncio.run(asyncio.wait_for(scene(), 10))
    assert refusals == 4  # 10 s, 5, 2.5, 1.25


def test_firm_deadlines_make_batches_smaller(thinker, costs, observations):
    """Alone 1 s, each further request 1 s: 2.5 s are enough for two."""
    seen = observations(4)

    async def scene():
        async with World(thinker, Costs({1: Cost(alone=1.0, further=1.0)}), waits=True) as world:
            world.batcher.clients = 8  # four more might ask: nobody waits for ever
            asked = [await world.ask(o, 2.5) for o in seen]
            world.go()
            await asyncio.gather(*asked)

    asyncio.run(asyncio.wait_for(scene(), 10))
    assert thinker.calls[0] == (2, 1)


def test_a_withdrawn_request_costs_nothing(thinker, costs, observations):
    seen = observations(3)

    async def scene():
        async with World(thinker, costs()) as world:
            first = await world.busy(seen[0])
            gone, stays = await world.ask(seen[1]), await world.ask(seen[2])
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            thinker.gate.set()
            await asyncio.gather(first, stays)

    asyncio.run(scene())
    assert [size for size, _ in thinker.calls] == [1, 1]


def test_a_failure_is_told_and_survived(thinker, costs, observations):
    (seen,) = observations(1)

    async def scene():
        async with World(thinker, costs()) as world:
            thinker.failure = RuntimeError("out of memory\nand a long story")
            with pytest.raises(Failed) as found:
                await (await world.ask(seen))
            assert str(found.value) == "the policy failed: out of memory"
            thinker.failure = RuntimeError()
            with pytest.raises(Failed):
                await (await world.ask(seen))
            thinker.failure = None
            await (await world.ask(seen))

    asyncio.run(scene())


def test_a_mistake_of_ours_ends_it(thinker, costs, observations):
    (seen,) = observations(1)

    async def scene():
        thinker.failure = KeyError("ours")
        batcher = Batcher(thinker, costs(), 8)
        asked = asyncio.create_task(batcher.decide(seen, time.perf_counter() + 60, firm=True))
        with pytest.raises(KeyError):
            await batcher.run()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    asyncio.run(scene())
