"""`chat-sse check`: say whether the settings are right and what they mean, and with `--ask` whether the journal can be
used and the upstreams answer.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import structlog

from app.cli.advice import about_examples, about_the_internet, about_upstreams
from app.cli.process import Commands, add_command, complain
from app.composition.access import (
    about_origins,
    create_access,
    create_policy,
    default_model,
    usual_allowance,
    usual_caps,
)
from app.composition.config_file import Config, Upstream, create_config
from app.composition.service import check_parts, create_client, create_source, journal_url
from app.composition.settings import PREFIX, Settings, SettingsError, environment, load
from app.edge.access.allow_list import ANYTHING, AllowList
from app.edge.access.models import Rule
from app.edge.bodies import MOST_TOP_LOGPROBS
from app.errors import FirstTokenTimeout, Rejected, UpstreamError
from app.journal import about as about_journal
from app.journal import engine_of
from app.request import Allowance, StreamRequest
from app.upstream import Attempt

_PROMPT = ({"role": "user", "content": "Say hi."},)
_SIMULATOR = "http://localhost"  # stands for the built-in simulator, which is not started to be checked


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Say which arguments the command takes."""
    parser = add_command(
        commands,
        "check",
        "say whether the settings are right, and what they mean",
        "Say whether the settings are right, and what they mean. It starts nothing.",
        "examples:\n  chat-sse check\n  chat-sse check --ask upstreams.toml",
    )
    parser.add_argument("file", nargs="?", type=Path, help=f"TOML file (default: {PREFIX}CONFIG)")
    parser.add_argument(
        "--ask",
        action="store_true",
        help="look whether Redis, or the folder of streams on disk, can be used, and ask each upstream for one token",
    )
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    return check(load(), environment(), arguments.file, ask=arguments.ask)


def check(
    settings: Settings,
    environ: Mapping[str, str],
    file: Path | None = None,
    *,
    ask: bool = False,
    seconds: float = 30.0,
) -> int:
    """Check *file*, or what the settings say, and return the exit status: 0 or 1.

    *ask* the journal whether it is there, and every upstream for a token; give each up after so many *seconds*.
    """
    if file is not None:
        settings = settings.model_copy(update={"config": file})
    try:
        config = create_config(settings, environ, _SIMULATOR)
        policy = create_policy(config, settings)
        default = default_model(config, settings, policy)
        access = create_access(settings, config, structlog.get_logger())
        for upstream in config.upstreams:
            create_client(upstream, settings)  # its proxy and its certificates come from the environment
        asyncio.run(check_parts(settings, structlog.get_logger()))
    except SettingsError as error:
        return complain(str(error))
    print(f"credentials: {'none are asked for' if access.open else 'asked for'}")
    print(about_origins(settings))
    print(f"hosts: {', '.join(sorted(access.origins.hosts)) or 'any'}")
    print(f"journal: {about_journal(journal_url(settings))}")
    print(f"each principal: {_quota(usual_allowance(settings))}")
    if settings.simulated:
        print("upstream: the built-in simulator")
    else:
        for line in describe(config, settings, default):
            print(line)
        for warning in about_upstreams(config, settings):
            print(f"warning: {warning}")
    for warning in (*about_examples(settings), *about_the_internet(config, settings)):
        print(f"warning: {warning}")
    if not ask:
        return 0
    status = asyncio.run(_ask_journal(settings))
    if not settings.simulated:
        status = max(status, asyncio.run(_ask_all(config, settings, default, seconds)))
    return status


def describe(config: Config, settings: Settings, default: str) -> Iterator[str]:
    """Yield a line for each upstream, model and key, with names and limits and without secrets."""
    for upstream in config.upstreams:
        facts = [str(upstream.base_url), _key(upstream)]
        facts.append(f"models: {', '.join(upstream.models) or 'any'}")
        if upstream.headers:
            facts.append(f"headers: {', '.join(upstream.headers)}")
        if upstream.extra_body:
            facts.append(f"extra body: {', '.join(upstream.extra_body)}")
        if upstream.first_token_timeout:
            facts.append(f"first content within {upstream.first_token_timeout:g} s")
        yield f"upstream {upstream.name}: {'; '.join(facts)}"
    caps = usual_caps(settings, config)
    rules = {model.name: model.rule(caps) for model in config.models}
    routes = config.routes
    yield f"requests may have: {'; '.join(_allowed(caps.allowed))}"
    for name in settings.models or config.offered:
        route = ", then ".join(f"{hop.upstream}/{hop.model or name}" for hop in routes.get(name, config.rest))
        rule = rules.get(name, caps)
        facts = [route, *_limits(rule)]
        if rule.allowed != caps.allowed:
            facts.append(f"requests may have: {', '.join(_allowed(rule.allowed))}")
        yield f"model {name}{' (default)' if name == default else ''}: {'; '.join(facts)}"
    if config.rest and not settings.models:
        route = ", then ".join(hop.upstream for hop in config.rest)
        yield f"any other model: {'; '.join([route, *_limits(caps)])}"
    for key in config.keys:
        yield f"key {key.name}: {_quota(key.api_key(usual_allowance(settings)).allowance)}"


def _key(upstream: Upstream) -> str:
    if upstream.key_env:
        return f"key from {upstream.key_env}"
    if "authorization" in {name.lower() for name in upstream.headers}:
        return "key in the file"
    return "no key"


def _limits(rule: Rule) -> Iterator[str]:
    if rule.max_output_tokens:
        yield f"at most {rule.max_output_tokens} output tokens"
    if rule.max_messages:
        yield f"at most {rule.max_messages} messages"
    if rule.max_prompt_chars:
        yield f"at most {rule.max_prompt_chars} characters of prompt"
    if rule.pinned:
        yield f"pinned: {', '.join(rule.pinned)}"
    if rule.system:
        yield "a system message of its own"


def _allowed(allowed: AllowList) -> Iterator[str]:
    if allowed == ANYTHING:
        yield "anything"
        return
    further = {"any others"} if allowed.parameters is None else allowed.parameters
    yield f"parameters: {', '.join(('the ordinary ones', *sorted(further)))}"
    for what, types in (("tools", allowed.tool_types), ("media", allowed.media_types)):
        yield f"{what}: {'any' if types is None else ', '.join(sorted(types)) or 'none'}"
    if allowed.max_media:
        yield f"at most {allowed.max_media} media"
    if allowed.max_media_bytes:
        yield f"at most {allowed.max_media_bytes} bytes of media"
    if allowed.max_top_logprobs < MOST_TOP_LOGPROBS:
        yield f"top_logprobs: at most {allowed.max_top_logprobs}" if allowed.max_top_logprobs else "no logprobs"
    if allowed.stored_files:
        yield "files that the upstream keeps"


def _quota(allowed: Allowance) -> str:
    units = {
        "requests a minute": allowed.requests,
        "live streams": allowed.streams,
        "readers": allowed.readers,
        "output tokens a day": allowed.tokens,
    }
    return ", ".join(f"{number or 'any number of'} {unit}" for unit, number in units.items())


# --- asking


async def _ask_journal(settings: Settings) -> int:
    """Print whether what keeps the streams can be used, if it is outside of the process, and return the exit status."""
    ask = getattr(engine_of(settings.journal), "ask", None)
    if ask is None:
        return 0
    begun = time.monotonic()
    usable, said = await ask(journal_url(settings))
    if usable:
        took = f"ok {(time.monotonic() - begun) * 1000:.0f} ms"
        said = f"{took}; {said}" if said else took
    print(f"journal: {said}")
    return 0 if usable else 1


class _Question(NamedTuple):
    """A question to one upstream. *field* is the parameter that limits the answer to one token."""

    upstream: Upstream
    model: str
    field: str


async def _ask_all(config: Config, settings: Settings, default: str, seconds: float) -> int:
    questions = [_question(upstream, config, default) for upstream in config.upstreams]
    answers = await asyncio.gather(*(_answer(question, settings, seconds) for question in questions))
    for question, (_, line) in zip(questions, answers, strict=True):
        print(f"{question.upstream.name}/{question.model}: {line}")
    return 0 if all(answered for answered, _ in answers) else 1


def _question(upstream: Upstream, config: Config, default: str) -> _Question:
    """Ask for the first model whose route leads to the upstream, else for the first that it lists, else the default."""
    for model in config.models:
        for hop in config.routes[model.name]:
            if hop.upstream == upstream.name:
                return _Question(upstream, hop.model or model.name, model.output_tokens_field)
    return _Question(upstream, next(iter(upstream.models), default), Rule().output_tokens_field)


async def _answer(question: _Question, settings: Settings, seconds: float) -> tuple[bool, str]:
    """Return whether *question* was answered, and what to print about it."""
    begun = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            try:
                await _ask(question, settings, {question.field: 1})
            except Rejected:
                # One token is too little for some models that reason, and some upstreams know another field. The cost
                # stays small without the limit, because nothing is read after the first content.
                await _ask(question, settings, {})
    except TimeoutError:
        return False, f"{FirstTokenTimeout.code}: no answer within {seconds:g} s"
    except UpstreamError as error:
        return False, f"{error.code}: {error.text}{f' {error.cause}' if error.cause else ''}"
    return True, f"ok {(time.monotonic() - begun) * 1000:.0f} ms"


async def _ask(question: _Question, settings: Settings, parameters: Mapping[str, int]) -> None:
    """Ask, and stop at the first content or at the end. Raises UpstreamError."""
    async with create_client(question.upstream, settings) as client:
        source = create_source(question.upstream, client, settings)
        async with aclosing(source.stream(StreamRequest(question.model, _PROMPT, parameters), Attempt())) as batches:
            async for batch in batches:
                if batch:
                    return
