"""The endpoints, by dialect. Adding a dialect's endpoints is adding one file.

A module of this package that has a `routes(streams)` serves a dialect; `routes` here joins what they return. A dialect
of `app.wire` needs no endpoints of its own: `GET /v1/streams/{id}?dialect=` reads a stream in any of them.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from starlette.routing import Route

from app.edge.streams import Streams


def routes(streams: Streams) -> list[Route]:
    """Return the routes of all dialects."""
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return [route for module in modules if hasattr(module, "routes") for route in module.routes(streams)]
