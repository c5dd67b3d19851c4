"""Short answers, one after another: what a request costs, and how long its first token takes."""

from __future__ import annotations

import asyncio
import gc

from tests.benchmarks.client import clock, connect, content_of
from tests.benchmarks.run import Run

_LONGEST = 20.0  # seconds that an answer may take


class Requests(Run):
    """As many clients as the scenario has streams, each of which asks again and again, over a new connection.

    What is counted are answers, in place of deltas.
    """

    _answers = 0
    _settled = _over = False

    async def play(self) -> None:
        """Ask, look at the window, count instructions, wait for the last answers."""
        scenario = self.scenario
        self.seen.idle_rss = self.rss()
        gc.disable()  # a pause here would pass for one of the service
        self._origin = self._loop.time()
        clients = [asyncio.ensure_future(self._ask_again_and_again()) for _ in range(scenario.streams)]
        await self.until(scenario.ramp + scenario.settle)
        self._settled = True
        await self.look()
        self._settled = False
        await self._count()
        self._over = True
        await asyncio.gather(*clients)

    async def _ask_again_and_again(self) -> None:
        scenario, plan, seen = self.scenario, self.plan, self.seen
        content = content_of(plan.ask, clock(scenario.rate, scenario.answers))
        while not self._over:
            try:
                stream = await connect(plan.ask, plan.port, scenario.answers)
                stream.ask(content)
                await asyncio.wait_for(stream.over.wait(), _LONGEST)
                complaint = stream.complaint
            except OSError as error:
                complaint = f"{type(error).__name__}: {error}"
            if complaint:
                seen.lost += 1
                seen.complaints = [*seen.complaints, complaint][:5]
                return
            self._answers += 1
            if self._settled:
                seen.first_token.append((stream.first - stream.asked) / 1e6)

    def _deltas(self) -> int:
        return self._answers
