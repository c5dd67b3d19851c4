"""What the service is compared with. Versions are pinned, so that two runs compare the same things."""

from __future__ import annotations

import json
import secrets

from tests.benchmarks.contenders.ground import PROMPT, SERVERS, Contender, Ground, Running, openai_ask
from tests.benchmarks.contenders.packages import NODE, node_packages, python_with
from tests.benchmarks.plan import MODEL, Ask
from tests.ports import free_port
from tests.real.processes import nginx_program

OPENAI = "openai==3.57.0"
HANDLERS = (
    *("fastapi==0.165.0", "httpx==0.28.1", "httpx-sse==0.4.3", OPENAI, "sse-starlette==3.7.0"),
    *("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0"),
)
SOCKET_IO = ("socket.io@4.8.4", "axios@1.21.1")
AI_SDK = ("ai@7.0.173", "@ai-sdk/openai-compatible@3.0.92")
# The newest whose proxy could be installed on 2026-11-28: later ones ask for packages that PyPI did not have.
LITELLM = ("litellm[proxy]==1.108.7",)
TENSORZERO = ("tensorzero==2026.6.0", OPENAI)
PORTKEY = ("@portkey-ai/gateway@1.15.2",)

# What a delta costs in a proxy that only moves bytes: the yardstick. One worker, because the service is one process.
_NGINX = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream simulator {{ server 127.0.0.1:{upstream}; keepalive 2048; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://simulator;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""

_TENSORZERO = """\
[gateway]
observability.enabled = false
[models.clock]
routing = ["simulator"]
[models.clock.providers.simulator]
type = "openai"
model_name = "clock"
api_base = "{upstream}/v1/"
api_key_location = "none"
"""


def _nginx(ground: Ground) -> Running:
    port = free_port()
    directory = ground.directory / f"nginx-{port}"
    directory.mkdir()
    config = directory / "bare.conf"
    config.write_text(_NGINX.format(directory=directory, upstream=ground.simulator.port, port=port))
    return Running(ground.start([nginx_program(), "-p", directory, "-c", config], port), openai_ask())


def _pipe(ground: Ground) -> Running:
    port = free_port()
    return Running(ground.start([NODE, SERVERS / "pipe.mjs", port, ground.upstream], port), openai_ask())


def _naive(ground: Ground) -> Running:
    return _handler(ground, "naive.py")


def _official_sdk(ground: Ground) -> Running:
    return _handler(ground, "official_sdk.py")


def _handler(ground: Ground, script: str) -> Running:
    port = free_port()
    ask = Ask("/v1/chat", {"prompt": PROMPT, "model": MODEL}, end="data: [DONE]")
    return Running(ground.start([python_with(HANDLERS), SERVERS / script, port, ground.upstream], port), ask)


def _socket_io(ground: Ground) -> Running:
    port, packages = free_port(), node_packages(SOCKET_IO)
    server = ground.start([NODE, SERVERS / "socket_io.mjs", port, ground.upstream], port, NODE_PATH=str(packages))
    return Running(server, Ask("", {"prompt": PROMPT, "model": MODEL}, end='"[DONE]"', socket_io=True))


def _ai_sdk(ground: Ground) -> Running:
    port, packages = free_port(), node_packages(AI_SDK)
    server = ground.start([NODE, SERVERS / "ai_sdk.mjs", port, ground.upstream], port, NODE_PATH=str(packages))
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": PROMPT}]}
    return Running(server, Ask("/api/chat", {"model": MODEL, "messages": [message]}, end="data: [DONE]"))


def _litellm(ground: Ground) -> Running:
    port, key = free_port(), f"sk-{secrets.token_urlsafe(24)}"  # without a key it refuses to start
    config = ground.directory / f"litellm-{port}.yaml"
    model = {"model": "openai/*", "api_base": ground.simulator.url, "api_key": "none"}
    settings = {"model_list": [{"model_name": "*", "litellm_params": model}], "litellm_settings": {"telemetry": False}}
    config.write_text(json.dumps(settings))  # which is YAML too
    binary = python_with(LITELLM).parent / "litellm"
    command = [binary, "--config", config, "--host", "127.0.0.1", "--port", port, "--num_workers", 1]
    # It would fetch a price list at its start; and has to be told not to log each request.
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key, "LITELLM_LOG": "ERROR"}
    return Running(ground.start(command, port, **env), openai_ask(headers={"authorization": f"Bearer {key}"}))


def _tensorzero(ground: Ground) -> Running:
    config = ground.directory / f"tensorzero-{secrets.token_hex(4)}.toml"
    config.write_text(_TENSORZERO.format(upstream=ground.upstream))
    command = [python_with(TENSORZERO), SERVERS / "tensorzero_gateway.py", config]
    server = ground.start(command, says=r"listens on (http://[^/\s]+)")
    # Its models are all named in its configuration, so the simulator's knobs go into the request on its way out.
    knobs = [{"model_name": "clock", "pointer": "/model", "value": MODEL}]
    ask = openai_ask(model="tensorzero::model_name::clock", **{"tensorzero::extra_body": knobs})
    return Running(server, Ask(f"/openai{ask.path}", ask.body, ask.end))


def _portkey(ground: Ground) -> Running:
    port = free_port()
    script = node_packages(PORTKEY) / "@portkey-ai/gateway/build/start-server.js"
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": ground.simulator.url,
        "authorization": "Bearer none",
    }
    return Running(ground.start([NODE, script, f"--port={port}", "--headless"], port), openai_ask(headers=headers))


NGINX = Contender("nginx", "bare nginx: a proxy that only moves bytes", _nginx)

PEERS = (
    Contender("node pipe", "bare Node: `http` piped to `http`", _pipe),
    Contender("naive", "httpx, httpx-sse and sse-starlette, as everybody writes it first", _naive),
    Contender("official SDK", f"FastAPI with the official SDK ({OPENAI})", _official_sdk),
    Contender("socket.io", f"the gateway this replaces, written afresh ({', '.join(SOCKET_IO)})", _socket_io),
    Contender("AI SDK", f"Vercel's AI SDK, `streamText` ({', '.join(AI_SDK)})", _ai_sdk),
    Contender("LiteLLM", f"its proxy, one worker ({LITELLM[0]})", _litellm),
    Contender("TensorZero", f"its gateway, as its Python package brings it ({TENSORZERO[0]})", _tensorzero),
    Contender("Portkey", f"its gateway ({PORTKEY[0]})", _portkey),
)

# What was looked for and cannot be had from a package registry.
ABSENT = {
    "Bifrost": "its npm package @maximhq/bifrost@1.6.3 has no gateway in it: it downloads one from a server of its own",
}
