"""Whom to ask for what: several upstreams from one TOML file, or the one that the settings name.

`parts` has the words, `file` reads the file. What is here fits them and the settings together.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.composition.config_file import load_config
from app.composition.parts import Config, Hop, Key, Model, Upstream
from app.composition.settings import PREFIX, Settings, SettingsError
from app.edge.access.models import Policy, Rule

__all__ = ["Config", "Hop", "Key", "Model", "Upstream", "choose_model", "create_config", "create_policy", "load_config"]

OPENAI = "https://api.openai.com/v1"


def create_config(settings: Settings, environ: Mapping[str, str], simulator: str = "") -> Config:
    """Return the file's configuration, or else the one upstream that the settings name, called "default".

    The keys that the file names come from *environ*. *simulator* is the base URL of the built-in simulator, for where
    the settings name none. Raises SettingsError.
    """
    if settings.config is not None:
        return load_config(settings.config, environ)
    key = settings.openai_api_key
    base_url = (
        str(settings.openai_base_url) if settings.openai_base_url else simulator if settings.simulated else OPENAI
    )
    if settings.upstream_background and settings.upstream != "openai-responses":
        raise SettingsError(f"{PREFIX}UPSTREAM_BACKGROUND takes {PREFIX}UPSTREAM=openai-responses.")
    default = Upstream(
        "default",
        base_url,
        key.get_secret_value() if key else None,
        kind=settings.upstream,
        background=settings.upstream_background,
    )
    return Config((default,))


def create_policy(config: Config, settings: Settings) -> Policy:
    """Return what may be asked. Raises SettingsError where the file and the settings contradict each other."""
    caps = Rule(settings.max_output_tokens, settings.max_messages, settings.max_prompt_chars)
    if config.models and settings.models:
        raise SettingsError(f"{PREFIX}MODELS and the [[models]] of {config.file} both say what is offered: keep one.")
    if config.models:
        return Policy({model.name: model.rule(caps) for model in config.models}, None)
    if settings.models:
        for name in settings.models:
            if name not in config.offered and not config.rest:
                raise SettingsError(f"{PREFIX}MODELS is not right: no upstream has {name[:64]!r}.")
        return Policy(dict.fromkeys(settings.models, caps), None)
    return Policy(dict.fromkeys(config.offered, caps), caps if config.rest else None)


def choose_model(config: Config, settings: Settings, policy: Policy) -> str:
    """Return the model for requests that name none. Raises SettingsError if the one that is set is not offered."""
    if settings.model:
        if not policy.offers(settings.model):
            raise SettingsError(f"{PREFIX}MODEL is not right: it is not among the models that are offered.")
        return settings.model
    return next(iter(settings.models or config.offered), settings.default_model)
