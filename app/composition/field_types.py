"""The types of settings, which the configuration file shares: each validates what it is given.

A wrong value is a ValueError whose message is the end of a sentence, and holds nothing of the value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, HttpUrl
from pydantic_settings import NoDecode

from app.edge.access.origins import parse_host, parse_origin
from app.hub import parse_disconnect_policy
from app.upstream import sources

Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1024, le=1 << 40)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]


def lower(level: object) -> object:
    """Return *level* in lower case, if it is a text."""
    return level.lower() if isinstance(level, str) else level


def _split(text: object) -> object:
    return [item.strip() for item in text.split(",") if item.strip()] if isinstance(text, str) else text


# Separated by commas. By default, pydantic-settings would read JSON.
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[Words, AfterValidator(lambda texts: tuple(map(parse_origin, texts)))]
Hosts = Annotated[Words, AfterValidator(lambda texts: tuple(map(parse_host, texts)))]


def bare_url(place: str) -> AfterValidator:
    """Return a validator of base URLs, which hold no secrets and no query. *place* is where a key belongs."""

    def check(url: HttpUrl) -> HttpUrl:
        if url.username or url.password or url.query is not None or url.fragment is not None:
            raise ValueError(f"it takes no user, password, query or fragment; a key goes into {place}")
        return url

    return AfterValidator(check)


def _is_source(kind: str) -> str:
    if kind not in sources.SOURCES:
        raise ValueError(f"it is one of {', '.join(sources.SOURCES)}")
    return kind


# The API that an upstream speaks.
Kind = Annotated[str, AfterValidator(_is_source)]


def read_by(parse: Callable[[str], object]) -> AfterValidator:
    """Return a validator of texts that are kept as they are, if *parse* can read them."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


DisconnectPolicy = Annotated[str, read_by(parse_disconnect_policy)]
