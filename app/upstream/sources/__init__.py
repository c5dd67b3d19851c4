"""The upstreams that can be asked, one file each. Adding an upstream is adding one file.

The file's name, with dashes, is the public name (`openai-chat`). It exports what `SourceModule` lists.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from app.upstream import Source
from app.upstream.endpoint import Endpoint


class SourceModule(Protocol):
    """What a file of this package exports."""

    OWN_FIELDS: frozenset[str]
    """The fields of a request that are the service's own to send, so that no operator's `extra_body` may hold them."""
    BACKGROUND: bool
    """Whether the upstream can answer in the background, and keep its answer: then its source is `Resumable`."""

    def create(self, endpoint: Endpoint, max_event: int, background: bool = False) -> Source:
        """Return the source that asks *endpoint*. *max_event* bounds one event of its stream, in bytes."""
        ...


def find_sources() -> Mapping[str, str]:
    """Return the names of the modules in this package, by their public names."""
    found = {module.name: f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)}
    return {name.replace("_", "-"): module for name, module in found.items()}


SOURCES = find_sources()


def load_source(name: str) -> SourceModule:
    """Return the module of the source that is called *name*. Raises KeyError."""
    return cast(SourceModule, import_module(SOURCES[name]))  # a test checks each
