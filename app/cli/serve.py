"""`chat-sse serve`: run the service in one process, or supervise several processes that do."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from app import __version__
from app.cli.activation import passed_listener
from app.cli.process import Commands, add_command, allow_many_sockets, bound_readers, listen, run_loop, say, url
from app.composition.access import about_origins
from app.composition.service import check_workers, compose, metrics_ports
from app.composition.settings import PREFIX, WORKERS_SECRET, Settings, load
from app.serving.server import Server
from app.serving.workers import END_TIMEOUT, Supervisor, SupervisorSocket
from app.telemetry import configure

# Why processes that share a journal should have a secret.
_WITHOUT = "no other process knows the tickets of this one, and names of principals can be guessed from their hashes"
# The directory that has the package: the working directory, if the service is run from its source.
_HOME = Path(__file__).parent.parent.parent


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Say which arguments the command takes."""
    parser = add_command(
        commands,
        "serve",
        "run the service",
        "Run the service, with the settings of the environment and of .env. Without an upstream, it streams from the "
        "built-in simulator.",
        "examples:\n  chat-sse serve\n  OPENAI_API_KEY=sk-... chat-sse serve --port 9000",
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: 8000); 0 picks a free one")
    parser.add_argument("--workers", type=int, help="processes that share the port (default: 1)")
    # The supervisor passes these to each worker: its number, the descriptors that it inherits, and whether the listener
    # stays open when all of them have ended.
    parser.add_argument("--outlived", action="store_true", help=argparse.SUPPRESS)
    for name in ("--worker", "--control", "--listener", "--metrics-listener"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    given = {"host": arguments.host, "port": arguments.port, "workers": arguments.workers}
    passed = passed_listener()
    if passed is not None:
        given["host"], given["port"] = passed.getsockname()[:2]
    settings = load(**{name: value for name, value in given.items() if value is not None})
    log = configure(settings.log_level, settings.log_format)
    number: int | None = arguments.worker
    check_workers(settings, is_worker=number is not None)
    if number is not None:
        inherited = [fd for fd in (arguments.listener, arguments.metrics_listener) if fd is not None]
        supervisor = SupervisorSocket(arguments.control)
        received = [socket.socket(fileno=descriptor) for descriptor in inherited]
        run_loop(_serve(settings, log.bind(worker=number), lambda: received, supervisor, outlived=arguments.outlived))
        return 0
    if settings.workers > 1:
        return _supervise(settings, log, passed)
    _warn_of_tickets(settings, log)

    def listeners() -> list[socket.socket]:
        return [_listen(settings, passed), *_metrics_listeners(settings)]

    run_loop(_serve(settings, log, listeners, outlived=passed is not None))
    return 0


async def _serve(
    settings: Settings,
    log: FilteringBoundLogger,
    listeners: Callable[[], Sequence[socket.socket]],
    supervisor: SupervisorSocket | None = None,
    *,
    outlived: bool,
) -> None:
    # Half of the descriptors are for readers, the other half for connections to upstreams.
    max_connections = min(settings.max_connections, max(16, allow_many_sockets() // 2))
    listener, *others = listeners()  # first, so that a port that is in use is all that is said
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    # The process before this one may not have ended yet, which listened on the same socket.
    overlap = settings.shutdown_grace + END_TIMEOUT if outlived else 0
    async with compose(settings, log, overlap) as service:
        where = url(*listener.getsockname()[:2])

        def announce() -> None:
            if supervisor is None:
                say(f"chat-sse {__version__} listens on {where}, upstream: {service.upstream}")
                say(about_origins(settings))
            else:
                supervisor.accepting(server.retire, server.abandon)
            # The objects made until now stay for good, and a collection that looks at them again takes long. A delta
            # makes few objects, which die at once, so collections can be rarer than by default. The two frequent kinds
            # look at some 12,500 objects at most. When 1,000 readers came back within a second, that took up to 12 ms;
            # with four times as many objects it took up to 47 ms.
            gc.freeze()
            gc.set_threshold(2_500, 4, 4_000)

        def interrupted() -> None:
            live = service.hub.live
            if live:
                _say_what_it_waits_for(f"{live} {'stream' if live == 1 else 'streams'}", settings)

        server = Server(
            service.app, service.hub, settings.shutdown_grace, announce, interrupted, max_connections, outlived=outlived
        )
        await server.run_on(listener, *others)


def _supervise(settings: Settings, log: FilteringBoundLogger, passed: socket.socket | None) -> int:
    with ExitStack() as held:
        listener = held.enter_context(_listen(settings, passed))
        metrics = [held.enter_context(other) for other in _metrics_listeners(settings)]
        host, port = listener.getsockname()[:2]
        # .env may have changed when a worker reads it
        fixed = {f"{PREFIX}HOST": settings.host, f"{PREFIX}PORT": str(port)}
        if settings.secret is None:
            fixed[WORKERS_SECRET] = secrets.token_urlsafe(32)
        environment = {name: value for name, value in os.environ.items() if name.upper() not in fixed} | fixed
        # -P: a worker imports from the working directory only if that is the service's source.
        command = [sys.executable, *(() if Path.cwd() == _HOME else ("-P",)), "-m", "app", "serve"]

        def spawn(number: int, control: int) -> subprocess.Popen[bytes]:
            given = {"--control": control, "--listener": listener.fileno()}
            if metrics:
                given["--metrics-listener"] = metrics[number].fileno()
            options = [str(part) for option in given.items() for part in option]
            if passed is not None:
                options.append("--outlived")
            return subprocess.Popen(  # noqa: S603 - this program
                [*command, "--worker", str(number), *options],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=tuple(given.values()),
                process_group=0,  # a terminal's Ctrl-C goes to the supervisor alone, which stops the workers
            )

        where = url(host, port)

        def announce() -> None:
            say(f"chat-sse {__version__} listens on {where}, with {settings.workers} workers")
            say(about_origins(settings))

        def interrupted() -> None:
            _say_what_it_waits_for("the workers' streams", settings)

        supervisor = Supervisor(settings.workers, spawn, settings.shutdown_grace, announce, interrupted, log)
        return asyncio.run(supervisor.run())


def _say_what_it_waits_for(streams: str, settings: Settings) -> None:
    say(f"Waiting up to {settings.shutdown_grace:g} s for {streams} to end. Press Ctrl-C again to end now.")


def _listen(settings: Settings, passed: socket.socket | None) -> socket.socket:
    if passed is None:
        return listen(settings.host, settings.port, settings.reader_timeout)
    bound_readers(passed, settings.reader_timeout)
    return passed


def _metrics_listeners(settings: Settings) -> list[socket.socket]:
    return [listen(settings.host, port, settings.reader_timeout) for port in metrics_ports(settings)]


def _warn_of_tickets(settings: Settings, log: FilteringBoundLogger) -> None:
    credentials = settings.api_keys or settings.jwt_secret or settings.jwt_key_file or settings.jwt_jwks_url
    if settings.journal != "memory" and settings.secret is None and (credentials or settings.config):
        log.warning("secret.missing", advice=f"set {PREFIX}SECRET: {_WITHOUT}")
