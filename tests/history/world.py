"""A service and its clients on a seeded loop, and what has to be true of them.

Everything that happens is drawn from the seed: what clients ask and when they leave, what upstreams do, in which order
things come. `history` runs one history, and raises AssertionError if an invariant does not hold.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from app.hub.stream import Stream
from app.journal import Bounds
from app.request import keyed_hash
from tests.history.client import Event, Exchange, events_in
from tests.history.disk import DrawnDisk
from tests.history.loop import SeededLoop
from tests.history.process import ALLOWANCES, Process
from tests.history.redis import DrawnRedis
from tests.history.upstream import DrawnUpstream, KeepingUpstream

_EPOCH = 1_800_000_000.0
_CUTS = ("auto", "none", "word", "sentence", "line,300ms", "size:5", "time:200")


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


class World:
    """Some processes, their upstream and their clients. *choose* draws what they do. *keeps*: no stream is dropped."""

    def __init__(
        self, choose: random.Random, processes: list[Process], upstream: DrawnUpstream, *, keeps: bool
    ) -> None:
        self.choose = choose
        self.keeps = keeps
        self.processes = processes
        self.shares = len(processes) > 1
        self.on_disk = processes[0].disk is not None
        self.ends: dict[str, Event] = {}  # by stream
        self.loses = False  # whether the disk has lost what was acknowledged
        self._serving: AsyncExitStack
        self.upstream = upstream
        self.questions: list[Question] = []
        self.readers: list[Reader] = []
        self.stopped: set[str] = set()  # the paths of streams that a client has wanted to end
        self.exchanges: list[Exchange] = []
        self.texts: dict[str, dict[int, str]] = {}  # by stream and number: all of the answer's text up to there

    async def run(self) -> None:
        """Let some clients come and go, and processes end, at times while clients are still there."""
        choose = self.choose
        async with AsyncExitStack() as serving:
            self._serving = serving
            for process in self.processes:
                await serving.enter_async_context(process.serving())
            beside = [asyncio.ensure_future(self._watch()), asyncio.ensure_future(self._misfortune())]
            await asyncio.gather(*(self._client(f"q{number}") for number in range(choose.randrange(1, 7))))
            for process in self.processes:
                process.cut_off = process.killed
                if self.shares:
                    process.redis.faults = 0
                if process.disk is not None:
                    process.disk.refuses = False
            await self._rest()
            if self.shares:
                await asyncio.sleep(60)  # what a dead process held has lapsed, or is adopted
                await self._rest()
            for task in beside:
                task.cancel()
            for outcome in await asyncio.gather(*beside, return_exceptions=True):
                if isinstance(outcome, AssertionError):
                    raise outcome
            if self.on_disk:
                await self._read_again()
            await self._check_rest()
        await self.upstream.stop()
        for process in self.processes:
            process.check_crashes()

    async def _rest(self) -> None:
        """Wait until no stream is live."""
        while not self.living or any(process.hub.live for process in self.living):
            await asyncio.sleep(5)

    @property
    def living(self) -> list[Process]:
        """The processes that were not killed."""
        return [process for process in self.processes if not process.killed]

    async def _misfortune(self) -> None:
        """Have a process end, in peace or not, or cut it off for a while."""
        choose = self.choose
        if choose.random() < (0.2 if self.shares or self.on_disk else 0.6):
            return
        if self.on_disk:
            await self._misfortune_of_disks()
            return
        await asyncio.sleep(20 * choose.random())
        process = choose.choice(self.processes)
        match choose.randrange(3) if self.shares else 0:
            case 0:
                await process.hub.drain(choose.choice((0, 5)))
                if self.upstream.keeps:  # what it has left is gone on with only once it is gone
                    self._kill(process)
            case 1:
                self._kill(process)
            case _:
                process.cut_off = True
                await asyncio.sleep(choose.choice((1, 8, 30)))
                process.cut_off = process.killed

    def _kill(self, process: Process) -> None:
        process.kill()
        for exchange in self.exchanges:
            if exchange.process is process:
                exchange.hang_up()

    async def _misfortune_of_disks(self) -> None:
        """Have the disk be full for a while, and the process killed, in either order, or several times."""
        choose = self.choose
        for _ in range(choose.randrange(1, 4)):
            await asyncio.sleep(10 * choose.random())
            [process] = self.living
            assert process.disk is not None
            if choose.random() < 0.4:
                process.disk.refuses = True
                await asyncio.sleep(choose.choice((0.5, 5, 30)))
            if choose.random() < 0.8:
                await self._restart(process)
            else:
                process.disk.refuses = False

    async def _restart(self, process: Process) -> None:
        """Kill a process, or the machine, and start another one on what is left of its disk."""
        choose = self.choose
        assert process.disk is not None
        power = choose.random() < 0.5
        process.kill()
        for exchange in self.exchanges:
            if exchange.process is process:
                exchange.end()
        left = process.disk.kill(process.disk.folder.with_name(f"d{len(self.processes)}"), power=power)
        self.loses = self.loses or (power and not process.disk.durable)
        following = Process(choose, self.upstream, process.bounds, disk=left)
        await self._serving.enter_async_context(following.serving())
        self.processes.append(following)

    async def _watch(self) -> None:
        """Check, again and again, what has to be true at any time."""
        alone: dict[Stream, float] = {}  # by live stream without a reader: since when
        while True:
            now = asyncio.get_running_loop().time()
            for process in self.living:
                readers = Counter(reader.principal.name for reader in process.hub._readers)
                live = Counter(stream.principal.name for stream in process.hub._streams.values())
                for who, allowance in ALLOWANCES.items():
                    assert readers[who] <= (allowance.readers or 100), "more readers than allowed"
                    assert live[who] <= (allowance.streams or 100), "more streams than allowed"
            streams = {key: stream for process in self.living for key, stream in process.alone.items()}
            for process in self.living:
                for reader in process.hub._readers:
                    streams.pop(reader.stream_id, None)
            alone = {stream: alone.get(stream, now) for stream in streams.values()}
            for stream, since in alone.items():
                is_known = stream.is_known and not stream.adopted  # a reader of an adopted one has to find this process
                grace = stream.request.grace if is_known else max(10, stream.request.grace)
                # A process learns only after some time that readers elsewhere are gone.
                assert now - since <= grace + (40 if self.shares else 2), "a stream goes on without a reader"
            await asyncio.sleep(0.5)

    async def _client(self, text: str) -> None:
        choose = self.choose
        who = choose.choice(list(ALLOWANCES))
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
            exchange = await self._exchange("POST", "/v1/chat", {**headers, "accept": accept}, body)
            await self._meanwhile(exchange, reader)
            if exchange.status not in (429, 502, 503, 504):
                break
            if exchange.ended and not question.key and not _ended_a_stream(exchange):
                # A budget may have nothing left for another try after one that failed, and tokens may have been made.
                paid = [it for it in tries[before:] if it.finished or _code(exchange) != "token_budget_spent"]
                assert not paid, "a request was refused after an upstream was asked"
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
        exchange = await self._exchange(
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

    async def _exchange(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Exchange:
        while not self.living:  # the next process starts
            await asyncio.sleep(0.1)
        cut = self.choose.randrange(2, 3000) if self.choose.random() < 0.5 else None
        process = self.choose.choice(self.living)
        exchange = Exchange(process.app, self.choose, method, path, headers, body, cut)
        exchange.process = process
        self.exchanges.append(exchange)
        return exchange

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
        """Stop the stream, look at it whole, read it as a second device, or as a stranger."""
        await asyncio.sleep(after)
        choose = self.choose
        path = f"/v1/streams/{sorted(question.stream_ids)[-1]}"
        headers = {"authorization": question.who, "accept": "application/json"}
        match choose.randrange(5):
            case 0:
                self.stopped.add(path)
                stop = await self._exchange("DELETE", path, headers)
                await stop.finished()
                assert stop.status in (0, 200, 404, 429, 503) or self._lost(stop), stop.status
            case 1:
                look = await self._exchange("GET", path, headers)
                await look.finished()
                assert look.status in (0, 200, 404, 429, 503) or self._lost(look), look.status
            case 2:
                stranger = next(who for who in ALLOWANCES if who != question.who)
                theft = await self._exchange(choose.choice(("GET", "DELETE")), path, {"authorization": stranger})
                await theft.finished()
                assert theft.status in (0, 404, 429, 503), theft.status
            case 3:
                listing = await self._exchange("GET", "/v1/streams", headers)
                await listing.finished()
                assert listing.status in (0, 200, 429, 503), listing.status
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
            exchange = await self._exchange("GET", f"/v1/streams/{stream_id}{smooth}", headers)
            await self._meanwhile(exchange, reader)
            assert (
                exchange.status in (0, 200, 204, 404, 429, 503)
                or (exchange.status == 502 and not reader.events)
                or self._lost(exchange)
            ), (exchange.status, bytes(exchange.body), reader.events[-1:])
            if self.on_disk and self.keeps and not self.loses:
                assert exchange.status != 404 or not reader.events, "what was sent is gone"
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
            # Where a process gave a stream up, its own readers were told of the end sooner than others.
            known = text if event.name == "error" else texts.setdefault(event.number, text)
            assert known == text, "two readers were told different texts"
            if self.on_disk:
                self._check_numbers(event)
            if event.name == "error" and event.data["error"]["code"] == "producer_lost":
                given = any(each.name == "delta" for each in reader.events)
                assert self.upstream.forgets or self.loses or not given, "an answer was not gone on with"
            reader.events.append(event)
            if event.data.get("finish_reason") == "cancelled" and f"/v1/streams/{stream_id}" not in self.stopped:
                assert exchange.seconds < 15, "a stream was ended that was being read"
        whole = exchange.ended and not exchange.process.hub.draining
        assert reader.ended or not whole, "the answer ended without a terminal event"

    def _lost(self, exchange: Exchange) -> bool:
        """Whether a stream is said to be lost, and may be."""
        said = b"journal_lost" in exchange.body or not exchange.ended
        return self.loses and exchange.status == 502 and said

    def _check_numbers(self, event: Event) -> None:
        """Check that no number that a reader was given is another event's, also after a kill."""
        is_end = event.name in ("done", "error")
        if is_end and event.stream_id not in self.ends:
            told = max(self.texts[event.stream_id], default=0)
            assert told <= event.number, "an end has a number that was text's"
            self.ends[event.stream_id] = event
        end = self.ends.get(event.stream_id)
        if end is not None and not self.loses:
            assert event == end or (event.number < end.number and not is_end), "a stream has two ends"

    async def _read_again(self) -> None:
        """Read every stream once more, whose readers have gone, and so have processes that wrote it."""
        for question in self.questions:
            for stream_id in sorted(question.stream_ids):
                reader = Reader(question)
                self.readers.append(reader)
                again = await self._exchange("GET", f"/v1/streams/{stream_id}", {"authorization": question.who})
                await again.finished()
                if again.status == 200:
                    self._note(again, reader)

    async def _check_rest(self) -> None:
        """Check what has to be true when all clients have gone and no stream is live."""
        for question in self.questions:
            self._check_question(question)
        for process in self.living:
            process.check_rest()
        journal = self.living[0].journal
        for who, allowance in ALLOWANCES.items():
            account = keyed_hash(who)
            assert await journal.registry.occupy(account, "probe", 1), "a slot was not given back"
            await journal.registry.vacate(account, "probe")
            spent, reserved, _ = await journal.budgets.balance(account)
            assert not reserved, "tokens stay reserved"
            assert spent <= (allowance.tokens or 1 << 30), "more tokens than allowed"
            if allowance.tokens and len(self.living) == len(self.processes):
                asked = {question.text for question in self.questions if question.who == who}
                made = [generation for text in asked for generation in self.upstream.made.get(text, ())]
                known = sum(generation.tokens for generation in made if generation.counted)
                assert spent >= known, "tokens were not charged"
            if allowance.tokens and self.on_disk:
                adopted = [entry for it in self.living for entry in it.logs.entries if entry.get("adopted")]
                told = [it for it in adopted if it["principal"] == account and not it["usage_estimated"]]
                assert spent >= sum(it["completion_tokens"] for it in told), "an adopted stream was not charged"
        if len(self.living) == len(self.processes):
            assert not self.upstream.live, "an upstream makes an answer for no reader"
        if len(self.processes) == 1:
            assert all(generation.closed for made in self.upstream.made.values() for generation in made)

    def _check_question(self, question: Question) -> None:
        made = self.upstream.made.get(question.text, [])
        answers = [generation for generation in made if generation.tokens]
        if question.key and self.keeps and not self.loses:
            assert len(answers) <= 1, "a question with a key was answered, and paid for, twice"
        for reader in self.readers:
            if reader.question is not question or not reader.events:
                continue
            last = reader.events[-1]
            text = "".join(event.data["content"] for event in reader.events if event.name == "delta")
            fitting = [it for it in answers if it.text.startswith(text)]
            assert fitting or not text, "a reader was told what no upstream has made"
            if last.name == "done" and last.data["finish_reason"] != "cancelled":
                assert any(it.text == text and it.finished for it in fitting), "an answer called done is not whole"


def _ended_a_stream(exchange: Exchange) -> bool:
    """Whether the answer is an error that may have ended a stream, and not one for which none was opened."""
    code = _code(exchange)
    return code.startswith(("upstream_", "shutting_down", "journal_")) or code.endswith("_timeout")


def _code(exchange: Exchange) -> str:
    code: str = json.loads(exchange.body)["error"]["code"]
    return code


def _urlsafe(data: bytes) -> str:
    """Return *data* as `secrets.token_urlsafe` does."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def history(seed: int, redis: str = "", folder: Path | None = None, *, background: bool = False) -> int:
    """Run the history of one seed, and return how many steps it took. Raises AssertionError.

    With the URL of a *redis*, whose content is lost, it is one of several processes; with a *folder*, of processes on
    disk, one after the other. In the *background*, the upstream keeps its answers.
    """
    choose = random.Random(seed)
    loop = SeededLoop(choose)
    with ExitStack() as patches:
        for name, clock in (("time", lambda: _EPOCH + loop.time()), ("monotonic", loop.time)):
            patches.enter_context(mock.patch(f"time.{name}", clock))
        patches.enter_context(mock.patch("time.time_ns", lambda: int((_EPOCH + loop.time()) * 1e9)))
        patches.callback(random.setstate, random.getstate())
        random.seed(seed)
        patches.enter_context(mock.patch("secrets.token_urlsafe", lambda size: _urlsafe(random.randbytes(size))))
        patches.enter_context(mock.patch("secrets.token_hex", lambda size: random.randbytes(size).hex()))
        patches.callback(loop.close)
        patches.enter_context(mock.patch("app.journal.file.reserve._MOST", 1 << 16))
        loop.run_until_complete(_history(choose, redis, folder, background=background))
    assert not loop.failures, loop.failures
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    assert left == [], left
    return loop.steps


async def _history(choose: random.Random, url: str, folder: Path | None, *, background: bool) -> None:
    keeps = choose.random() < 0.4
    bounds = Bounds(
        stream=1 << 20 if keeps else choose.choice((1500, 1 << 20)),
        total=1 << 30 if keeps else choose.choice((20_000, 1 << 30)),
        ended=100 if keeps else choose.choice((2, 100)),
        seconds=3600 if keeps else choose.choice((20, 3600)),
        owner=1 << 30 if keeps else choose.choice((9_000, 1 << 30)),
    )
    upstream = KeepingUpstream(choose) if background else DrawnUpstream(choose)
    if folder is not None:
        with TemporaryDirectory(dir=folder) as place:
            disk = DrawnDisk(Path(place) / "d0", choose, durable=choose.random() < 0.5)
            await World(choose, [Process(choose, upstream, bounds, disk=disk)], upstream, keeps=keeps).run()
        return
    if not url:
        await World(choose, [Process(choose, upstream, bounds)], upstream, keeps=keeps).run()
        return
    processes = [Process(choose, upstream, bounds, shares=True) for _ in range(choose.choice((2, 3)))]
    with closing(DrawnRedis(url, choose, _EPOCH)) as redis:
        for process in processes:
            process.redis = redis
        await World(choose, processes, upstream, keeps=keeps).run()
