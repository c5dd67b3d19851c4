"""What `chat-sse check` warns of: settings that are allowed, and probably not what was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from app.addresses import is_loopback
from app.composition.config_file import Config
from app.composition.settings import PREFIX, Settings

# What a client adds to a base URL by itself, and the version that nearly all base URLs end in or have before that.
_ENDPOINT = re.compile("(/(?:chat/completions|completions|responses|embeddings|models))/?$")
_VERSION = re.compile("/v[0-9]")
# What examples have in place of a key, this project's own included.
_PLACEHOLDER = re.compile(r"…|\.\.\.|^<.*>$|\b(your|example|changeme|placeholder|x{4,})\b", re.IGNORECASE)
# Names that are kept free for examples (RFC 2606, section 3).
_EXAMPLE_HOST = re.compile(r"\bexample\.(?:com|net|org)\b|\.example\b")
_INTERNET = 'deploy/README.md, "Put it on the internet"'


def about_upstreams(config: Config, settings: Settings) -> Iterator[str]:
    """Yield a sentence for each thing about upstreams and models that is likely to be a mistake."""
    used = {hop.upstream for route in (*config.routes.values(), config.rest) for hop in route}
    patience = settings.first_token_timeout
    for upstream in config.upstreams:
        url = urlsplit(str(upstream.base_url))
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            yield f"upstream {upstream.name}: plain http to another host shows keys and prompts to the network."
        endpoint = _ENDPOINT.search(url.path or "")
        if endpoint:
            yield f"upstream {upstream.name}: its base URL ends in {endpoint[1]}, which the service adds by itself."
        elif not _VERSION.search(url.path or ""):
            yield f"upstream {upstream.name}: its base URL has no /v1 in its path, and most servers need that."
        key = upstream.key or ""
        if key.lower().startswith("bearer"):
            yield f"upstream {upstream.name}: its key begins with 'Bearer', which the service adds by itself."
        elif key[:1] in ("'", '"'):
            yield f"upstream {upstream.name}: its key is in quotation marks, which are sent as a part of it."
        elif _PLACEHOLDER.search(key):
            yield f"upstream {upstream.name}: its key looks like an example's."
        if upstream.name not in used:
            yield f"upstream {upstream.name}: no model's route leads to it."
        if 0 < patience <= upstream.first_token_timeout:
            yield (
                f"upstream {upstream.name}: its first_token_timeout is not below {PREFIX}FIRST_TOKEN_TIMEOUT, "
                f"which ends the stream after {patience:g} s before another upstream is asked."
            )
    for model in config.models:
        for field, pinned in (
            ("max_tokens", model.pinned.max_tokens),
            ("max_completion_tokens", model.pinned.max_completion_tokens),
        ):
            if 0 < (model.max_output_tokens or 0) < (pinned or 0):
                yield f"model {model.name}: its pinned {field} is above its max_output_tokens, and holds."


def about_examples(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each setting that has an example's value."""
    secrets = {"SECRET": settings.secret, "JWT_SECRET": settings.jwt_secret, "METRICS_TOKEN": settings.metrics_token}
    for name, secret in secrets.items():
        if secret is not None and _PLACEHOLDER.search(secret.get_secret_value()):
            yield f"{PREFIX}{name}: it looks like an example's."
    for name, values in (("ALLOWED_ORIGINS", settings.allowed_origins), ("ALLOWED_HOSTS", settings.allowed_hosts)):
        for value in values:
            if _EXAMPLE_HOST.search(value):
                yield f"{PREFIX}{name}: {value} is an example's."


def about_the_internet(config: Config, settings: Settings) -> Iterator[str]:
    """Yield a sentence for each thing that a service that others can reach should have, as deploy/README.md says."""
    asks = bool(
        settings.api_keys or settings.jwt_secret or settings.jwt_key_file or settings.jwt_jwks_url or config.keys
    )
    if settings.simulated:
        if asks:
            yield "credentials are asked for, and what they open is the simulator: no upstream is set."
        return
    if not asks and is_loopback(settings.host):
        return
    capped = bool(config.models) or bool(settings.models)
    for missing, name, why in (
        (asks and settings.secret is None, "SECRET", "a restart makes tickets worthless, and names can be guessed"),
        (not settings.allowed_hosts, "ALLOWED_HOSTS", "the service answers to any host name"),
        (settings.playground, "PLAYGROUND", "the playground is shown to everybody"),
        (not capped, "MODELS", "clients may ask for any model and for the tools that the upstream runs"),
        (not settings.max_output_tokens, "MAX_OUTPUT_TOKENS", "an answer may be as long as the model makes it"),
        (not settings.max_prompt_chars, "MAX_PROMPT_CHARS", "a prompt may be as long as a body"),
        (not settings.requests_per_minute, "REQUESTS_PER_MINUTE", "a principal may ask as often as it likes"),
        (not settings.streams_per_principal, "STREAMS_PER_PRINCIPAL", "a principal may take every stream"),
        (not settings.readers_per_principal, "READERS_PER_PRINCIPAL", "a principal may take every reader's place"),
        (not settings.tokens_per_day, "TOKENS_PER_DAY", "a principal may spend without a bound"),
        (not settings.count_input_tokens, "COUNT_INPUT_TOKENS", "prompts cost nothing of a principal's budget"),
        (
            not settings.total_requests_per_minute,
            "TOTAL_REQUESTS_PER_MINUTE",
            "all together may exceed the upstream's rate limit",
        ),
        (asks and settings.metrics_token is None, "METRICS_TOKEN", "`/metrics` is closed"),
    ):
        if missing:
            yield f"{PREFIX}{name}: {why}. See {_INTERNET}."
