"""What one run asks of the load client, and what the load client saw. Both cross its pipe as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

# What is between the simulator and the load client: nothing, a proxy, the service with its journal in memory, with its
# journal in Redis, and two such processes, of which one produces what the other is read on.
Via = Literal["direct", "nginx", "service", "redis", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """So many live streams, each of *rate* deltas a second, and how long they are looked at (all in seconds).

    Streams are opened evenly over *ramp* seconds; after *settle* more comes the *window* in which processor time,
    deltas and one-way latency are taken, and after that *probing*, for first tokens. All streams end together.
    *rounds* is how often those that are compared take turns, *direct_rounds* how often there is nothing in between.
    """

    name: str
    streams: int
    rate: float = 50
    ramp: float = 1.0
    settle: float = 0.7
    window: float = 4.0
    probing: float = 1.6
    probes: int = 40
    grace: float = 3.0
    rounds: int = 3
    direct_rounds: int = 2

    @property
    def duration(self) -> float:
        """Seconds from the first request to the end of all streams."""
        return self.ramp + self.settle + self.window + self.probing


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: *scenario* via what listens on *port*. *watch* are the processes to account for.

    Streams are started on *origin* and read on *port*, if that is another.
    """

    scenario: Scenario
    via: Via
    port: int
    watch: dict[str, list[int]]
    origin: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `dump` wrote."""
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "scenario": Scenario(**fields["scenario"])})

    def dump(self) -> str:
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Seen:
    """What one run brought to light.

    *seconds* is the window's true length and *deltas* what was delivered in it; *streams* of the scenario's streams had
    begun when it opened. *cpu* (seconds in the window) and *rss* (bytes at its end) go by the names of `Plan.watch`,
    the client's own being `load`; *idle_rss* is from before the first request. *age* is the mean number of deltas that
    a stream had had at the window's end. *one_way* and *first_token* are milliseconds.
    """

    seconds: float = 0.0
    deltas: int = 0
    streams: int = 0
    age: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    idle: float = 0.0  # processor seconds nobody used, over all cores
    rss: dict[str, int] = field(default_factory=dict)
    idle_rss: dict[str, int] = field(default_factory=dict)
    one_way: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    lost: int = 0  # refused, broken, incomplete, or stuck
    late: int = 0  # not ended when they should have been
    complaints: list[str] = field(default_factory=list)  # of the lost

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `dump` wrote."""
        return cls(**json.loads(text))

    def dump(self) -> str:
        return json.dumps(asdict(self))
