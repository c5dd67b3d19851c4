"""The simulator's endpoints: a request becomes a script.

There are OpenAI's `POST /v1/chat/completions`, `POST /v1/responses`, `GET /v1/responses/{id}` and
`POST /v1/responses/{id}/cancel` for background responses, and `GET /v1/models`. `GET /stats` gives the counters to
other processes, and `POST /stats/reset` sets them to zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from app.simulator.answer import Answer
from app.simulator.background import Shelf
from app.simulator.chat import ChatEncoder
from app.simulator.errors import Refused, require
from app.simulator.knobs import Knobs, tune
from app.simulator.models import Model
from app.simulator.player import Clock, Stats
from app.simulator.request import Request, chat_request, responses_request
from app.simulator.responses import ResponsesEncoder
from app.simulator.script import Reply, Script

# What OpenAI may call a model is played by sim-gpt, so that a client need not be configured for the simulator.
FAMILIES = ("gpt-", "chatgpt-", "o1", "o3", "o4")
CREATED = 1750000000


class Endpoints:
    """What requests are answered with. *models* are those that may be asked for, *defaults* are knobs for them all."""

    def __init__(self, models: Mapping[str, Model], defaults: Mapping[str, Any], clock: Clock) -> None:
        self.clock = clock
        self.closed = False  # whether clients that still come are turned away
        self.stats = Stats()
        self.shelf = Shelf(clock, self.stats)
        self._models = models
        self._defaults = defaults
        self._failures: Counter[str] = Counter()

    def reset(self) -> None:
        """Set the counters to zero, and forget how often flaky models have failed."""
        self.stats.reset()
        self._failures.clear()

    def answer(self, method: str, target: str, body: bytes, credentials: str) -> tuple[Script, float]:
        """Return the script that answers a request, and its deltas a second. Raises Refused."""
        path, _, query = target.partition("?")
        match method, path[1:].split("/"):
            case "POST", ["v1", "chat", "completions"]:
                return self._chat(body, credentials)
            case "POST", ["v1", "responses"]:
                return self._respond(body, credentials)
            case "GET", ["v1", "responses", response_id]:
                return self._retrieve(response_id, query), 0
            case "POST", ["v1", "responses", response_id, "cancel"]:
                found = self.shelf.find(response_id)
                found.cancel()
                return _once(found.encoder.snapshot()), 0
            case "GET", ["v1", "models"]:
                return _once({"object": "list", "data": [self._card(name) for name in self._models]}), 0
            case "GET", ["v1", "models", name] if name in self._models:
                return _once(self._card(name)), 0
            case "GET", ["stats"]:
                return _once(self.stats), 0
            case "POST", ["stats", "reset"]:
                self.reset()
                return _once(self.stats), 0
        raise Refused(404, f"Invalid URL ({method} {path[:100]})", code="unknown_url")

    def _chat(self, body: bytes, credentials: str) -> tuple[Script, float]:
        self.stats.requests += 1
        request = chat_request(body)
        model, knobs = self._model(request, "chat")
        answer = Answer(request, ChatEncoder(request), knobs, credentials, self._failures)
        return (model.stream if request.stream else model.whole)(answer), knobs.rate

    def _respond(self, body: bytes, credentials: str) -> tuple[Script, float]:
        self.stats.requests += 1
        self.stats.responses += 1
        request = responses_request(body)
        model, knobs = self._model(request, "responses")
        encoder = ResponsesEncoder(request)
        answer = Answer(request, encoder, knobs, credentials, self._failures)
        if not request.body.get("background"):
            return (model.stream if request.stream else model.whole)(answer), knobs.rate
        require(model.background, "background", "This model cannot run in the background.")
        started = self.shelf.start(answer, encoder, model.stream(answer))
        return started.stream() if request.stream else started.reply(), 0

    def _retrieve(self, response_id: str, query: str) -> Script:
        """Return the script that sends a background response, or streams it after the number that was read."""
        found = self.shelf.find(response_id)
        wanted = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
        if wanted.get("stream") != "true":
            return _once(found.encoder.snapshot())
        require(found.streamed, "stream", "This response was not created with stream=true.")
        after = wanted.get("starting_after", "-1")
        valid = after.removeprefix("-").isdecimal() and len(after) <= 18
        require(valid, "starting_after", "'starting_after' must be an integer.")
        if found.knobs.resume:
            raise Refused(found.knobs.resume)
        self.stats.background_resumed += 1
        return found.stream(int(after) if int(after) >= 0 else None)

    def _model(self, request: Request, api: str) -> tuple[Model, Knobs]:
        """Return the model that *request* asks for, and its knobs, and take these out of its name. Raises Refused."""
        name, _, query = request.model.partition("?")
        request.model = name
        model = self._models.get("sim-gpt" if name.startswith(FAMILIES) else name)
        if model is None:
            text = f"The model {name[:100]!r} does not exist or you do not have access to it."
            raise Refused(404, text, code="model_not_found", param="model")
        if model.only not in ("", api):
            raise Refused(404, f"This model is only supported for {model.only}, not for {api}.", param="model")
        return model, tune({**self._defaults, **model.knobs}, query)

    def _card(self, name: str) -> dict[str, Any]:
        """Return what `/v1/models` says of the model *name*."""
        description = self._models[name].description
        return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulator", "description": description}


def _once(body: Any) -> Script:
    """Return the script that sends *body*, as JSON unless it is bytes, at once."""
    return iter((Reply(body if isinstance(body, bytes) else orjson.dumps(body)),))
