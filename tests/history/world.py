"""A service and its clients on a seeded loop, and what has to be true of them.

Everything that happens is drawn from the seed: what clients ask and when they leave, what upstreams do, in which order
things come. `history` runs one, and raises AssertionError if an invariant does not hold.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import stamina
import structlog
from starlette.applications import Starlette
from starlette.types import Scope
from structlog.testing import LogCapture

from app.edge.access.authentication import AccessMiddleware, Credentials
from app.edge.access.budgets import DailyBudgets
from app.edge.access.origins import Origins
from app.edge.access.quota import Quota
from app.edge.access.rates import Counts, MemoryCounts
from app.edge.bodies import Defaults
from app.edge.dialects import routes
from app.edge.error_responses import crashed, failed
from app.edge.middleware import ContextMiddleware
from app.edge.streams import Options, Streams
from app.errors import StreamError, Unauthenticated
from app.hub import Capacity, Hub
from app.journal import Bounds
from app.journal.budgets import MemoryBudgets
from app.journal.memory import MemoryJournal
from app.meter import Meter
from app.relay import Limits
from app.request import Allowance, Principal, StreamRequest, account_of
from app.telemetry.canonical_line import CanonicalLine
from app.telemetry.stream_counts import StreamCounts
from app.upstream.router import RetryPolicy, Router, Target
from tests.history.client import Event, Exchange, events_in
from tests.history.loop import SeededLoop
from tests.history.upstream import DrawnUpstream

_EPOCH = 1_800_000_000.0
_CUTS = ("auto", "none", "word", "sentence", "line,300ms", "size:5", "time:200")
_ALLOWANCES = {
    "anne": Allowance(streams=2, readers=3, tokens=120, requests=60),
    "bert": Allowance(streams=3, readers=2),
    "cleo": Allowance(tokens=300, readers=4),
    "dirk": Allowance(),
}


@dataclass(slots=True)
class Reader:
    """What one client has read of the answer to one question, over all its connections."""

    question: Question
    events: list[Event] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].name in ("done", "error")


@dataclass(slots=True)
class Question:
    """What a client asked: *text* names it. *stream_ids* are those that the service has answered with."""

    text: str
    who: str
    key: str
    stream_ids: set[str] = field(default_factory=set)


class _Names(Credentials):
    """The principal is the one that `Authorization` names."""

    async def principal(self, scope: Scope) -> Principal:
        name = dict(scope["headers"]).get(b"authorization", b"").decode()
        if name not in _ALLOWANCES:
            raise Unauthenticated
        return Principal(name, _ALLOWANCES[name], account=account_of(name))


class World:
    """One service, its upstream and its clients. *choose* draws what they do."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.logs = LogCapture()
        log = structlog.wrap_logger(
            structlog.PrintLogger(),
            processors=[self.logs],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            cache_logger_on_first_use=False,
        ).bind()
        self.upstream = DrawnUpstream(choose)
        self.meter = Meter(["m"])
        self.journal = MemoryJournal(
            Bounds(
                stream=choose.choice((1500, 1 << 20)),
                total=choose.choice((20_000, 1 << 30)),
                ended=choose.choice((2, 100)),
                seconds=choose.choice((20, 3600)),
                owner=choose.choice((9_000, 1 << 30)),
            ),
            on_evict=lambda *eviction: self.hub.evicted(*eviction),
        )
        loop = asyncio.get_running_loop()
        self.journal.budgets = self.budgets = MemoryBudgets(loop.time)
        self.spending = DailyBudgets(self.budgets, reserve_tokens=50)
        first = Target("first", None, self.upstream, first_token=choose.choice((0, 2)))
        targets = [first, Target("second", None, self.upstream)][choose.randrange(2) :]
        router = Router({}, targets, RetryPolicy(attempts=2, initial=0.5, longest=4))
        limits = Limits(commit=choose.choice((0, 0.5, 2)), first_token=20, idle=15, progress=30, total=60)
        told = [CanonicalLine(), StreamCounts(self.meter), self.spending]
        self.hub = Hub(
            self.journal,
            router,
            limits,
            Capacity(choose.choice((3, 100)), choose.choice((4, 100))),
            self.meter,
            log,
            told,
            10.0,
            self.spending,
        )
        self.quota = Quota(Counts(MemoryCounts()), self.spending, choose.choice((0, 90)))
        options = Options(
            Defaults(model="m", chunk="auto", grace=10, max_grace=1000, grace_is_set=False),
            admit=self._admit,
            tickets=None,
            hold=2,
            max_body=1 << 20,
            body_seconds=10,
            keep_alive=choose.choice((1, 15)),
            reconnect_ms=1000,
            models=("m",),
            listed=self._listed,
        )
        handlers: Any = {StreamError: failed, Exception: crashed}
        inner = Starlette(routes=routes(Streams(self.hub, options)), exception_handlers=handlers)
        guarded = AccessMiddleware(inner, _Names(), self.quota, ())
        self.app = ContextMiddleware(guarded, Origins(), self.meter, log)
        self.questions: list[Question] = []
        self.readers: list[Reader] = []
        self.texts: dict[str, dict[int, str]] = {}  # by stream and number: all of the answer's text up to there

    def _admit(self, request: StreamRequest) -> StreamRequest:
        return request

    async def _listed(self) -> list[Any]:
        return []

    async def run(self) -> None:
        """Let some clients come and go, and the service end; at times while they are still there."""
        choose = self.choose
        watch = asyncio.ensure_future(self._watch())
        clients = [asyncio.ensure_future(self._client(f"q{number}")) for number in range(choose.randrange(1, 7))]
        if choose.random() < 0.3:
            await asyncio.sleep(20 * choose.random())
            await self.hub.drain(choose.choice((0, 5)))
        await asyncio.gather(*clients)
        await self._quiet()
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        if not watch.cancelled():
            watch.result()
        self._check_rest()
        await self.hub.drain(0)
        self.journal.close()

    async def _quiet(self) -> None:
        """Wait until no stream is live."""
        while self.hub.live:
            await asyncio.sleep(5)
        await asyncio.sleep(0)

    async def _watch(self) -> None:
        """Check, again and again, what has to be true at any time."""
        alone: dict[str, float] = {}  # by live stream without a reader: since when
        while True:
            now = asyncio.get_running_loop().time()
            readers = Counter(reader.principal.name for reader in self.hub._readers)
            live = Counter(stream.principal.name for stream in self.hub._streams.values())
            for who, allowance in _ALLOWANCES.items():
                assert readers[who] <= (allowance.readers or 100), "more readers than allowed"
                assert live[who] <= (allowance.streams or 100), "more streams than allowed"
                spent, reserved, _ = await self.budgets.balance(account_of(who))
                assert spent + reserved <= (allowance.tokens or 1 << 30), "more tokens than allowed"
            read = {reader.stream_id for reader in self.hub._readers}
            live_ones = [stream for stream in self.hub._streams.values() if stream.relay.ended is None]
            alone = {it.id: alone.get(it.id, now) for it in live_ones if it.id not in read}
            for stream_id, since in alone.items():
                stream = self.hub._streams[stream_id]
                grace = stream.request.grace if stream.is_known else max(10, stream.request.grace)
                assert now - since <= grace + 2, "a stream goes on although its readers have left"
            await asyncio.sleep(0.5)

    async def _client(self, text: str) -> None:
        choose = self.choose
        who = choose.choice(list(_ALLOWANCES))
        question = Question(text, who, choose.choice(("", f"key of {text}", "a key")))
        if question.key == "a key":  # several clients ask the same
            question.text = f"{who}'s"
        self.questions.append(question)
        await asyncio.sleep(6 * choose.random())
        if not question.key and choose.random() < 0.2:
            await self._ask_as_openai(question)
            return
        works = [self._ask(question) for _ in range(choose.choice((1, 1, 2)) if question.key else 1)]
        await asyncio.gather(*works)

    def _asking(self, question: Question) -> bytes:
        choose = self.choose if not question.key else random.Random(question.text)
        body: dict[str, Any] = {"prompt": question.text, "chunk": choose.choice(_CUTS)}
        body["on_disconnect"] = choose.choice(("cancel", "continue", "grace:3", "grace:30"))
        if choose.random() < 0.3:
            body["max_tokens"] = choose.randrange(1, 50)
        return json.dumps(body).encode()

    async def _ask(self, question: Question) -> None:
        """Ask, and read the answer to its end, whatever happens to the connection. Give up where that is final."""
        choose = self.choose
        body = self._asking(question)
        headers = {"authorization": question.who}
        if question.key:
            headers["idempotency-key"] = question.key
        reader = Reader(question)
        self.readers.append(reader)
        accept = choose.choice(("text/event-stream", "text/event-stream", "application/json"))
        for _ in range(3):
            tries = self.upstream.made.setdefault(question.text, [])
            before = len(tries)
            exchange = self._exchange("POST", "/v1/chat", {**headers, "accept": accept}, body)
            await self._meanwhile(exchange, reader)
            if exchange.status not in (429, 502, 503, 504):
                break
            if exchange.ended and not question.key and not _ended_the_stream(exchange):
                assert len(tries) == before, "a request was refused after an upstream was asked"
            await asyncio.sleep(choose.choice((0.5, 5, 70)))
        if exchange.status == 201 and exchange.ended:
            question.stream_ids.add(json.loads(exchange.body)["stream_id"])
        if not reader.ended and question.stream_ids and choose.random() < 0.9:
            await self._come_back(reader)

    async def _ask_as_openai(self, question: Question) -> None:
        """Ask in OpenAI's dialect, whose clients do not come back. An answer that they take for whole is whole."""
        choose = self.choose
        streamed = choose.random() < 0.7
        body = {"messages": [{"role": "user", "content": question.text}], "stream": streamed}
        exchange = self._exchange(
            "POST", "/v1/chat/completions", {"authorization": question.who}, json.dumps(body).encode()
        )
        if choose.random() < 0.3:
            await self._leave(exchange, 5 * choose.random())
        await exchange.finished()
        if exchange.status != 200 or (not streamed and not exchange.ended):
            return
        if streamed:
            lines = exchange.body.decode(errors="replace").split("\n\n")[:-1]
            data = [line.rpartition("data: ")[2].partition("\n")[0] for line in lines if "data: " in line]
            choices = [it for one in data if one != "[DONE]" for it in json.loads(one).get("choices", ())]
            text = "".join(it["delta"].get("content") or "" for it in choices)
        else:
            choices = json.loads(exchange.body)["choices"]
            text = choices[0]["message"]["content"]
        reasons = {it["finish_reason"] for it in choices} & {"stop", "length"}
        made = self.upstream.made[question.text]
        assert any(it.text.startswith(text) for it in made), "a reader was told what no upstream has made"
        if reasons:
            assert any(it.text == text and it.finished in reasons for it in made), "an answer is not whole"

    def _exchange(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Exchange:
        cut = self.choose.randrange(2, 3000) if self.choose.random() < 0.5 else None
        return Exchange(self.app, self.choose, method, path, headers, body, cut)

    async def _meanwhile(self, exchange: Exchange, reader: Reader) -> None:
        """Wait for the end of an exchange that reads the answer; at times hang up, stop, look or ask beside it."""
        choose = self.choose
        beside = []
        if choose.random() < 0.2:
            beside.append(asyncio.ensure_future(self._leave(exchange, 10 * choose.random() ** 2)))
        if choose.random() < 0.25 and reader.question.stream_ids:
            beside.append(asyncio.ensure_future(self._beside(reader.question, 5 * choose.random())))
        await exchange.finished()
        for task in beside:
            await task
        if exchange.status == 200:
            self._note(exchange, reader)

    async def _leave(self, exchange: Exchange, after: float) -> None:
        await asyncio.wait((exchange.task,), timeout=after)
        exchange.hang_up()

    async def _beside(self, question: Question, after: float) -> None:
        """Stop the stream, look at it whole, read it as a second device, or as somebody who may not."""
        await asyncio.sleep(after)
        choose = self.choose
        path = f"/v1/streams/{sorted(question.stream_ids)[-1]}"
        headers = {"authorization": question.who, "accept": "application/json"}
        match choose.randrange(5):
            case 0:
                stop = self._exchange("DELETE", path, headers)
                await stop.finished()
                assert stop.status in (0, 200, 404, 429, 503), stop.status
            case 1:
                look = self._exchange("GET", path, headers)
                await look.finished()
                assert look.status in (0, 200, 404, 429, 503), look.status
            case 2:
                stranger = next(who for who in _ALLOWANCES if who != question.who)
                theft = self._exchange(choose.choice(("GET", "DELETE")), path, {"authorization": stranger})
                await theft.finished()
                assert theft.status in (0, 404, 429, 503), theft.status
            case 3:
                listing = self._exchange("GET", "/v1/streams", headers)
                await listing.finished()
                assert listing.status in (0, 200, 429), listing.status
            case _:
                second = Reader(question)
                self.readers.append(second)
                await self._come_back(second)

    async def _come_back(self, reader: Reader) -> None:
        choose = self.choose
        headers = {"authorization": reader.question.who, "accept": "*/*"}
        for _ in range(choose.randrange(1, 12)):
            if reader.events:
                last = reader.events[-1]
                stream_id = last.stream_id
                headers["last-event-id"] = f"{stream_id}-{last.number}"
            else:
                stream_id = sorted(reader.question.stream_ids)[-1]
            smooth = choose.choice(("", "", "?smooth=200"))
            exchange = self._exchange("GET", f"/v1/streams/{stream_id}{smooth}", headers)
            await self._meanwhile(exchange, reader)
            assert exchange.status in (0, 200, 204, 404, 429, 503) or (exchange.status == 502 and not reader.events), (
                exchange.status
            )
            if reader.ended or exchange.status in (204, 404, 502):
                return
            await asyncio.sleep(choose.choice((0.0, 0.1, 2.0, 8.0)))

    def _note(self, exchange: Exchange, reader: Reader) -> None:
        """Add what came to what the reader has, and check that it goes on exactly there."""
        stream_id = exchange.headers.get("x-stream-id")
        if not exchange.headers["content-type"].startswith("text/event-stream") or stream_id is None:
            return
        reader.question.stream_ids.add(stream_id)
        texts = self.texts.setdefault(stream_id, {0: ""})
        for event in events_in(bytes(exchange.body)):
            assert event.stream_id == stream_id
            assert not reader.ended, "something came after the terminal event"
            before = reader.events[-1].number if reader.events else 0
            assert event.number > before, "an event came again"
            assert event.number == before + 1 or event.name == "delta", "an event is missing"
            assert (event.name == "start") == (event.number == 1) or event.name == "error", event
            text = texts[before] + (event.data["content"] if event.name == "delta" else "")
            assert texts.setdefault(event.number, text) == text, "two readers were told different texts"
            reader.events.append(event)
        whole = exchange.ended and not self.hub.draining
        assert reader.ended or not whole, "the answer ended without a terminal event"

    def _check_rest(self) -> None:
        """Check what has to be true when all clients have gone and no stream is live."""
        for question in self.questions:
            self._check_question(question)
        hub = self.hub
        assert not hub.reading, hub.reading
        assert (hub._reserved, hub._opening, dict(hub._readers_of), hub._stopping) == (0, 0, {}, set())
        assert self.journal.registry._slots == {}
        logs = self.journal._logs.values()
        assert all(log.ended and not log.reading and not log._sinks for log in logs)
        assert self.journal.size == sum(log.size for log in logs)
        for holder in self.journal._holders.values():
            assert holder.size == sum(log.size for log in holder.logs.values())
        assert self.spending._reserved == {}
        for who, allowance in _ALLOWANCES.items():
            account = self.budgets._accounts.get(account_of(who))
            if account is not None:
                assert not account.reserved
                assert account.spent <= allowance.tokens, "more tokens than allowed"
        assert all(generation.closed for made in self.upstream.made.values() for generation in made)
        crashes = [entry for entry in self.logs.entries if entry["log_level"] in ("error", "critical")]
        assert crashes == []

    def _check_question(self, question: Question) -> None:
        made = self.upstream.made.get(question.text, [])
        answers = [generation for generation in made if generation.tokens]
        if question.key and not self.evicts:
            assert len(answers) <= 1, "a question with a key was answered, and paid for, twice"
        for reader in self.readers:
            if reader.question is not question or not reader.events:
                continue
            last = reader.events[-1]
            text = self.texts[last.stream_id][last.number]
            fitting = [it for it in answers if it.text.startswith(text)]
            assert fitting or not text, "a reader was told what no upstream has made"
            if last.name == "done" and last.data["finish_reason"] != "cancelled":
                assert any(it.text == text and it.finished for it in fitting), "an answer called done is not whole"

    @property
    def evicts(self) -> bool:
        """Whether a stream was dropped before its time, so that its key means nothing any more."""
        return any(self.meter.evicted.values())


def _ended_the_stream(exchange: Exchange) -> bool:
    """Whether the answer is an error that ended a stream, and not one for which none was opened."""
    code: str = json.loads(exchange.body)["error"]["code"]
    return code.startswith("upstream_") or code.endswith("_timeout") or code == "shutting_down"


def urlsafe(data: bytes) -> str:
    """Return *data* as `secrets.token_urlsafe` does."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def history(seed: int) -> int:
    """Run the history of one seed, and return how many steps it took. Raises AssertionError."""
    choose = random.Random(seed)
    loop = SeededLoop(choose)
    with ExitStack() as patches:
        for name, clock in (("time", lambda: _EPOCH + loop.time()), ("monotonic", loop.time)):
            patches.enter_context(mock.patch(f"time.{name}", clock))
        patches.enter_context(mock.patch("time.time_ns", lambda: int((_EPOCH + loop.time()) * 1e9)))
        patches.callback(random.setstate, random.getstate())
        random.seed(seed)
        patches.enter_context(mock.patch("secrets.token_urlsafe", lambda size: urlsafe(random.randbytes(size))))
        patches.callback(loop.close)
        patches.callback(stamina.instrumentation.set_on_retry_hooks, None)
        stamina.instrumentation.set_on_retry_hooks(())

        async def run() -> None:
            await World(choose).run()

        loop.run_until_complete(run())
    assert not loop.failures, loop.failures
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    assert left == [], left
    return loop.steps
