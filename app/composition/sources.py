"""From upstreams as a configuration has them to those that can be asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import httpx

from app.composition.parts import Config, Hop, Upstream
from app.composition.settings import Settings
from app.upstream import Source, retry
from app.upstream.http.client import create_client
from app.upstream.models import Listing, Models
from app.upstream.openai_chat import OpenAIChat
from app.upstream.responses.source import OpenAIResponses
from app.upstream.router import Router, Target


class Asking(NamedTuple):
    """*router* asks whom a request's model leads to; *models* are those of upstreams that may be asked for any."""

    router: Router
    models: Models


def client_for(upstream: Upstream, settings: Settings) -> httpx.AsyncClient:
    """Return a client for one upstream."""
    timeout = settings.connect_timeout if upstream.connect_timeout is None else upstream.connect_timeout
    return create_client(upstream.base_url, timeout)


def create_source(upstream: Upstream, client: httpx.AsyncClient, settings: Settings) -> Source:
    """Return what asks one upstream, in its own words."""
    headers, extra = upstream.headers, upstream.extra_body
    if upstream.kind == "openai-responses":
        return OpenAIResponses(
            client, upstream.base_url, upstream.key, settings.max_event, headers, extra, upstream.background
        )
    return OpenAIChat(client, upstream.base_url, upstream.key, settings.max_event, headers, extra)


async def create_asking(settings: Settings, config: Config, held: AsyncExitStack) -> Asking:
    """Build it all; *held* closes the clients."""
    clients = {each.name: await held.enter_async_context(client_for(each, settings)) for each in config.upstreams}
    sources = {each.name: create_source(each, clients[each.name], settings) for each in config.upstreams}
    patience = {each.name: each.first_token_timeout for each in config.upstreams}

    def targets(route: Sequence[Hop]) -> list[Target]:
        return [Target(hop.upstream, hop.model, sources[hop.upstream], patience[hop.upstream]) for hop in route]

    again = retry.Policy(settings.retry_attempts, settings.retry_wait, settings.retry_wait_max)
    router = Router({name: targets(route) for name, route in config.routes.items()}, targets(config.rest), again)
    # Where the settings say what may be asked for, nothing else is worth listing.
    anything = {hop.upstream for hop in config.rest} if not settings.models else set()
    listings = [
        Listing(clients[each.name], each.base_url, each.key, each.headers)
        for each in config.upstreams
        if each.name in anything
    ]
    return Asking(router, Models(listings))
