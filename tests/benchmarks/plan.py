"""What one run asks of the load client, and what the load client saw. Both are handed over as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

# What stands in a request's body for the simulator's model, which says how many deltas and how fast.
MODEL = "{model}"

# What the load client does with the streams that it opened; see `tests.benchmarks.tasks`.
Task = Literal["load", "abort", "resume", "idle", "memory", "paused"]


@dataclass(frozen=True, slots=True)
class Ask:
    """How a contender is asked for a stream, and how a whole answer of it ends.

    *body* holds `MODEL` where the model goes. *readers* is how many read each stream; more than one takes
    `GET /v1/streams/{id}`. With *socket_io* it is not HTTP: the body is what is emitted.
    """

    path: str
    body: Mapping[str, Any]
    end: str
    headers: Mapping[str, str] = field(default_factory=dict)
    readers: int = 1
    socket_io: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """So many live streams, each of *rate* deltas a second, and how long they are looked at (all in seconds).

    Streams are opened evenly over *ramp* seconds; after *settle* more comes the *window* in which processor time,
    deltas and one-way latency are taken, and after that *probing*, for first tokens, and *counting*, for instructions
    (0: they are not counted; else at least 1.5). All streams end together.
    *rounds* is how often those that are compared take turns, *direct_rounds* how often there is nothing in between.
    Who is hopelessly behind at the window's end is left there, unless the load client is *patient*.

    With *answers*, as many clients as *streams* ask for answers of so many deltas, again and again (`Requests`).
    """

    name: str
    streams: int
    rate: float = 50
    ramp: float = 1.0
    settle: float = 0.7
    window: float = 4.0
    probing: float = 1.6
    counting: float = 0.0
    probes: int = 40
    grace: float = 3.0
    rounds: int = 3
    direct_rounds: int = 2
    patient: bool = False
    answers: int = 0

    @property
    def duration(self) -> float:
        """Seconds from the first request to the end of all streams."""
        return self.ramp + self.settle + self.window + self.probing + self.counting

    @property
    def load(self) -> str:
        """The load in words."""
        if self.answers:
            return f"{self.streams:,} at once, {self.answers} deltas each"
        return f"{self.streams:,} × {self.rate:g}/s"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: *scenario* on what listens on *port* and is asked by *ask*. *watch* are the processes to account for.

    Streams are started on *origin* and read on *port*, if that is another. *simulator* is the simulator's port.
    """

    scenario: Scenario
    ask: Ask
    port: int
    watch: dict[str, list[int]]
    simulator: int
    task: Task = "load"
    origin: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `dump` wrote."""
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "scenario": Scenario(**fields["scenario"]), "ask": Ask(**fields["ask"])})

    def dump(self) -> str:
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Seen:
    """What one run brought to light.

    *seconds* is the window's true length and *deltas* what was delivered in it, counted once however many read it;
    *streams* of the scenario's streams had begun when it opened. *cpu* (seconds in the window) and *rss* (bytes at its
    end) go by the names of `Plan.watch`, the client's own being `load`; *idle_rss* is from before the first request.
    *instructions*, by the same names, are those retired while *counted* deltas came, later than the window; there are
    none where the processor's counters cannot be read.
    Where a scenario has *answers*, these are counted, and not deltas.
    *age* is the mean number of deltas that a stream had had at the window's end. *one_way* and *first_token* are
    milliseconds, as are *samples*, which are what a task other than `load` takes.
    """

    seconds: float = 0.0
    deltas: int = 0
    streams: int = 0
    age: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    instructions: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    idle: float = 0.0  # unused processor seconds, over all cores
    rss: dict[str, int] = field(default_factory=dict)
    idle_rss: dict[str, int] = field(default_factory=dict)
    one_way: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)
    lost: int = 0  # refused, broken, incomplete, or stuck
    late: int = 0  # not ended when they should have been
    cut: int = 0  # hopelessly behind, and so not waited for
    complaints: list[str] = field(default_factory=list)  # of the lost

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `dump` wrote."""
        return cls(**json.loads(text))

    def dump(self) -> str:
        return json.dumps(asdict(self))
