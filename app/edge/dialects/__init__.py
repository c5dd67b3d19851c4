"""The endpoints, by dialect. Adding a dialect's endpoints is adding one file.

A module of this package that has a `routes(streams)` serves a dialect; `routes` here joins what they return. A dialect
of `app.wire` needs no endpoints of its own: `GET /v1/streams/{id}?dialect=` reads a stream in any of them. A module may
have `ERRORS`: the form of an error for each beginning of a path.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from starlette.routing import Route

from app.edge.streams import Streams
from app.wire import ErrorForm


def routes(streams: Streams) -> list[Route]:
    """Return the routes of all dialects."""
    return [route for module in _modules() if hasattr(module, "routes") for route in module.routes(streams)]


def error_forms() -> dict[str, ErrorForm]:
    """Return the forms of errors, by how the paths begin for which each holds. For all others it is the native one."""
    return {path: form for module in _modules() for path, form in getattr(module, "ERRORS", {}).items()}


def _modules() -> list[Any]:
    return [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
