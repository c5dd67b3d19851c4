"""Other people's programs reach this machine alone: what they would tell or ask their makers is no part of a test."""

from __future__ import annotations

import json

# The discard service, which no machine offers any more: a connection to it is refused at once.
_NOWHERE = ("127.0.0.1", 9)
_PROXY = "http://{}:{}".format(*_NOWHERE)
_LOCAL = "127.0.0.1,localhost"

# The environment of a program that goes by the usual variables. Each is read in one of its two spellings.
ENVIRONMENT = {
    spelt: value
    for name, value in (("http_proxy", _PROXY), ("https_proxy", _PROXY), ("all_proxy", _PROXY), ("no_proxy", _LOCAL))
    for spelt in (name, name.upper())
}

# Firefox has settings of its own, without which it goes around a proxy for some of what it asks.
FIREFOX_ENVIRONMENT = {"MOZ_REMOTE_SETTINGS_DEVTOOLS": "1"}  # a release goes by `services.settings.server` with it only
_FIREFOX: dict[str, str | int | bool] = {
    "network.proxy.type": 1,
    "network.proxy.http": _NOWHERE[0],
    "network.proxy.http_port": _NOWHERE[1],
    "network.proxy.ssl": _NOWHERE[0],
    "network.proxy.ssl_port": _NOWHERE[1],
    "network.proxy.no_proxies_on": _LOCAL,
    "network.proxy.failover_direct": False,  # its own requests would go around a proxy that is not there
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "network.trr.mode": 5,  # no DNS over HTTPS
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.region.network.url": "",
    "browser.safebrowsing.downloads.remote.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.push.connection.enabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.server": "data:,",
}


def firefox_profile() -> str:
    """Return the `user.js` of a profile."""
    return "".join(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _FIREFOX.items())
