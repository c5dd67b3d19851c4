"""The composition root: from settings to upstreams, journal, hub, and the ASGI application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limits.aio.storage import Storage
from limits.storage import storage_from_string
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from app import simulator
from app.composition.access import Access, create_access, create_policy, default_model
from app.composition.config_file import Config, Hop, Upstream, create_config
from app.composition.settings import PREFIX, Settings, SettingsError, environment
from app.edge.access.authentication import AccessMiddleware
from app.edge.access.budgets import DailyBudgets
from app.edge.access.cors import Cors
from app.edge.access.models import ModelPolicy
from app.edge.access.quota import Quota
from app.edge.access.rates import Counts, MemoryCounts, Rates, SharedCounts
from app.edge.bodies import Defaults
from app.edge.dialects import error_forms, routes
from app.edge.error_responses import crashed, failed, unrouted
from app.edge.middleware import ContextMiddleware
from app.edge.openapi.docs import docs
from app.edge.openapi.document import document, examples, openapi
from app.edge.routing import RouteTable
from app.edge.static import page, playground
from app.edge.status import Health, Metrics, MetricsPorts
from app.edge.streams import ListModels, Options, Streams
from app.errors import StreamError, Unreachable
from app.hub import Capacity, Hub, Observer, parse_disconnect_policy
from app.journal import Bounds, Journal, JournalInUse, JournalRefused, engine_of
from app.journal import create as create_journal
from app.meter import Meter
from app.relay import Limits
from app.telemetry.canonical_line import CanonicalLine
from app.telemetry.instruments import Ceilings, Measured
from app.telemetry.loop_delay import sampling
from app.telemetry.prometheus import Exposition
from app.telemetry.stream_counts import StreamCounts
from app.upstream import Source
from app.upstream.endpoint import Endpoint
from app.upstream.http.client import Client
from app.upstream.http.client import create_client as create_http_client
from app.upstream.models import Models
from app.upstream.router import RetryPolicy, Router, Target
from app.upstream.sources import load_source

if TYPE_CHECKING:
    from app.telemetry.otlp import Exporter


# Seconds between two looks whether another process still uses the journal.
_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Service:
    """A composed service. *upstream* tells people which upstreams it has."""

    app: ASGIApp
    hub: Hub
    upstream: str


@asynccontextmanager
async def compose(settings: Settings, log: FilteringBoundLogger, overlap: float = 0) -> AsyncIterator[Service]:
    """Build a service in the running loop, and close what it has opened at the end. Raises SettingsError.

    Another process may use the journal for *overlap* seconds yet, since this one is to take its place.
    """
    async with AsyncExitStack() as held:
        config = await _config(settings, held)
        access = create_access(settings, config, log)
        policy = create_policy(config, settings)
        model = default_model(config, settings, policy)
        meter = Meter({model, *config.offered, *settings.models}, [upstream.name for upstream in config.upstreams])
        held.enter_context(sampling(meter.loop_delay))
        journal = _journal(settings, lambda stream_id, reason: hub.evicted(stream_id, reason), log)
        capacity = Capacity(settings.max_streams, settings.max_readers)
        budgets = DailyBudgets(journal.budgets, settings.reserve_tokens, count_input=settings.count_input_tokens)
        quota = Quota(_rates(settings, held, log), budgets, settings.total_requests_per_minute)
        observers: list[Observer] = [CanonicalLine(names=settings.log_principals), StreamCounts(meter), budgets]
        exporter = await _exporter(settings, meter, log, held)
        if exporter is not None:
            observers.append(exporter)
        clients = {
            each.name: await held.enter_async_context(create_client(each, settings)) for each in config.upstreams
        }
        router = _router(settings, config, clients)
        limits = _limits(settings)
        hub = Hub(
            journal,
            router,
            limits,
            capacity,
            meter,
            log,
            observers,
            spending=budgets,
            key=access.key,
            secrets=policy.secrets,
        )
        try:
            await _open(journal, hub, overlap, held, log)
        except JournalRefused as error:
            raise SettingsError(f"{PREFIX}JOURNAL cannot be used: {error}.") from None
        held.push_async_callback(hub.drain, 0)
        ceilings = Ceilings(settings.max_streams, settings.max_readers, settings.max_total)
        token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
        measured = Measured(meter, hub, journal, ceilings)
        if exporter is not None:
            exporter.measure(measured.read)
        metrics = Metrics(Exposition(measured.read), token, open=access.open)
        models = tuple(dict.fromkeys((model, *(settings.models or config.offered))))
        listed = _models(settings, config, clients)
        streams = Streams(hub, _options(settings, models, listed, policy, access))
        public = _public_routes(settings, hub, metrics, access)
        app = _application(streams, public, access, quota)
        if ports := metrics_ports(settings):
            app = MetricsPorts(app, ports)
        app = ContextMiddleware(app, access.origins, meter, log, error_forms())
        yield Service(app, hub, _upstreams(settings, config))


async def check_parts(settings: Settings, log: FilteringBoundLogger) -> None:
    """Make what `compose` makes of the settings alone, without connecting to anything. Raises SettingsError."""
    check_workers(settings)
    async with AsyncExitStack() as held:
        _journal(settings, lambda stream_id, reason: None, log)
        create_counts(settings, held)
        await _exporter(settings, Meter((), ()), log, held)


def metrics_ports(settings: Settings) -> range:
    """Return the ports of the processes' own metrics, of which there may be none."""
    return range(settings.metrics_port, settings.metrics_port + settings.workers) if settings.metrics_port else range(0)


def check_workers(settings: Settings, *, is_worker: bool = False) -> None:
    """Raise SettingsError if there are several processes, and the journal is one that they cannot share."""
    if (is_worker or settings.workers > 1) and not engine_of(settings.journal).SHARED:
        raise SettingsError(
            f"{PREFIX}WORKERS is {settings.workers}, and processes share neither memory nor a file: set "
            f"{PREFIX}JOURNAL to redis://HOST:PORT/DB, or run one process."
        )


async def _config(settings: Settings, held: AsyncExitStack) -> Config:
    """Return the configuration. If the settings name no upstream, start the simulator and let it be the upstream."""
    if not settings.simulated:
        return create_config(settings, environment())
    simulated = await held.enter_async_context(await simulator.serve())
    return create_config(settings, environment(), simulated.url)


def _upstreams(settings: Settings, config: Config) -> str:
    """Return the upstreams' names for people."""
    if settings.simulated:
        return "the built-in simulator (OPENAI_API_KEY or OPENAI_BASE_URL switches to a real one)"
    if settings.config is not None:
        return f"{', '.join(upstream.name for upstream in config.upstreams)} ({settings.config})"
    return str(config.upstreams[0].base_url)


def create_client(upstream: Upstream, settings: Settings) -> Client:
    """Return a client for one upstream. Raises SettingsError if its proxy is not supported."""
    timeout = settings.connect_timeout if upstream.connect_timeout is None else upstream.connect_timeout
    try:
        return create_http_client(str(upstream.base_url), timeout, settings.upstream_keep_idle)
    except Unreachable as error:
        raise SettingsError(error.text) from None


def create_source(upstream: Upstream, client: Client, settings: Settings) -> Source:
    """Return the source that asks one upstream in its own dialect."""
    return load_source(upstream.kind).create(_endpoint(upstream, client), settings.max_event, upstream.background)


def _endpoint(upstream: Upstream, client: Client) -> Endpoint:
    return Endpoint(client, str(upstream.base_url), upstream.key, upstream.headers, upstream.extra_body)


def _router(settings: Settings, config: Config, clients: Mapping[str, Client]) -> Router:
    upstreams = {each.name: each for each in config.upstreams}
    sources = {name: create_source(each, clients[name], settings) for name, each in upstreams.items()}

    def targets(route: Sequence[Hop]) -> list[Target]:
        return [
            Target(hop.upstream, hop.model, sources[hop.upstream], upstreams[hop.upstream].first_token_timeout)
            for hop in route
        ]

    again = RetryPolicy(settings.retry_attempts, settings.retry_wait, settings.retry_wait_max)
    return Router({name: targets(route) for name, route in config.routes.items()}, targets(config.rest), again)


def _models(settings: Settings, config: Config, clients: Mapping[str, Client]) -> Models:
    """Return the models that upstreams list, of those upstreams that may be asked for any model.

    If the settings list the models, there are no others.
    """
    anything = set() if settings.models else {hop.upstream for hop in config.rest}
    return Models([_endpoint(each, clients[each.name]) for each in config.upstreams if each.name in anything])


def _rates(settings: Settings, held: AsyncExitStack, log: FilteringBoundLogger) -> Rates:
    counts = create_counts(settings, held)
    return SharedCounts(counts, log) if engine_of(settings.journal).SHARED else Counts(counts)


def create_counts(settings: Settings, held: AsyncExitStack) -> Storage:
    """Return the storage for the counts of requests, which is where the streams are kept."""
    if not engine_of(settings.journal).SHARED:
        return MemoryCounts()
    # `limits` takes TLS to a cluster as an option and not as a scheme.
    url = settings.journal.replace("unix://", "redis+unix://").replace("rediss+cluster://", "redis+cluster://")
    options: dict[str, Any] = {"socket_timeout": None}  # it would measure the event loop, too: see `SharedCounts`
    if settings.journal.startswith("rediss+cluster://"):
        options["ssl"] = True
    storage: Any = storage_from_string(
        f"async+{url}", implementation="redispy", key_prefix="chat-sse:limits", **options
    )
    held.push_async_callback(storage.bridge.storage.aclose)
    assert isinstance(storage, Storage)  # noqa: S101 - of an async url
    return storage


def journal_url(settings: Settings) -> str:
    """Return where streams are kept."""
    return settings.journal.replace("{port}", str(settings.port))


def _journal(settings: Settings, on_evict: Callable[[str, str], None], log: FilteringBoundLogger) -> Journal:
    bounds = Bounds(
        settings.max_stream, settings.max_total, settings.max_kept, settings.keep, settings.max_per_principal
    )
    try:
        return create_journal(journal_url(settings), bounds, settings.journal_timeout, on_evict, log)
    except ModuleNotFoundError:
        raise SettingsError(f"{PREFIX}JOURNAL needs a package that is missing: pip install '.[redis]'.") from None


async def _open(journal: Journal, hub: Hub, overlap: float, held: AsyncExitStack, log: FilteringBoundLogger) -> None:
    """Have the journal in use. Raises JournalRefused, after *overlap* seconds if another process goes on using it."""
    loop = asyncio.get_running_loop()
    began, waits = loop.time(), False
    while True:
        try:
            await held.enter_async_context(journal.serving(hub))
        except JournalInUse as error:
            if loop.time() >= began + overlap:
                raise
            if not waits:
                waits = True
                log.info("journal.waiting", reason=f"{error}; it has up to {overlap:g} s to end")
            await asyncio.sleep(_LOOK)
        else:
            if waits:
                log.info("journal.waited", seconds=round(loop.time() - began, 3))
            return


async def _exporter(
    settings: Settings, meter: Meter, log: FilteringBoundLogger, held: AsyncExitStack
) -> Exporter | None:
    """Return the exporter for OTLP, if that is on. Its packages are an extra, so it is imported only then."""
    if not settings.otlp:
        return None
    # OpenTelemetry reads the process's own environment, and not `.env`.
    os.environ.update({name: value for name, value in environment().items() if name.startswith("OTEL_")})
    try:
        from app.telemetry.otlp import exporting

        return await held.enter_async_context(exporting(meter, log))
    except (ModuleNotFoundError, ValueError) as error:
        raise SettingsError(str(error)) from None


def _limits(settings: Settings) -> Limits:
    return Limits(
        commit=settings.commit_after,
        retry_hold=settings.retry_hold,
        first_token=settings.first_token_timeout,
        idle=settings.idle_timeout,
        progress=settings.progress_timeout,
        total=settings.total_timeout,
    )


def _options(
    settings: Settings, models: Sequence[str], listed: ListModels, policy: ModelPolicy, access: Access
) -> Options:
    """Return what the settings say about requests and answers; the first of *models* is the default."""
    defaults = Defaults(
        model=models[0],
        chunk=settings.chunk,
        grace=parse_disconnect_policy(settings.on_disconnect),
        grace_is_set="on_disconnect" in settings.model_fields_set,
        max_grace=parse_disconnect_policy(settings.on_disconnect_max),
    )
    return Options(
        defaults,
        admit=policy.admit,
        tickets=access.tickets,
        commit_after=settings.commit_after,
        max_body=settings.max_body,
        body_seconds=settings.body_timeout,
        keep_alive=settings.keep_alive,
        reconnect_ms=settings.reconnect_ms,
        models=models,
        listed=listed,
    )


def _public_routes(settings: Settings, hub: Hub, metrics: Metrics, access: Access) -> list[Route]:
    """Return the endpoints that ask for no credentials, or check them themselves."""
    health = Health(hub)
    description = document(not access.open, settings.playground)
    simulated = settings.simulated and not settings.models  # a list of models may leave out the simulator's
    return [
        Route("/healthz", health.live),
        Route("/readyz", health.ready),
        Route(MetricsPorts.PATH, metrics.scrape),
        Route("/openapi.json", openapi(description)),
        Route("/docs", docs(description, examples())),
        Route("/docs.css", page("edge/openapi/docs.css")),
        Route("/client.js", page("client/client.js")),
        *(Route(path, page(file, simulated=simulated)) for path, file in playground().items() if settings.playground),
    ]


def _application(streams: Streams, public: Sequence[Route], access: Access, quota: Quota) -> ASGIApp:
    """Return all endpoints behind the access control, and that behind CORS, whose headers refusals need as well."""
    app = Starlette(exception_handlers={StreamError: failed, HTTPException: unrouted, Exception: crashed})
    app.router = RouteTable([*routes(streams), *public])
    access_control = AccessMiddleware(app, access.credentials, quota, [route.path for route in public])
    return Cors(access_control, access.origins)
