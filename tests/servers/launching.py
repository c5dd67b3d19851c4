"""Other people's servers, as real processes: how each is started, and what it does in its own way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port
from tests.real.processes import Process, Server, log_file
from tests.servers.environments import environment

# How long one may take to be ready, in seconds. vLLM imports for half a minute on two cores.
_READY = 180
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
}


@dataclass(frozen=True)
class Kind:
    """One server. It serves the tiny model in the folder `tiny` of its working directory, under the name `tiny`."""

    name: str
    form: str
    """The model's format: gguf or huggingface."""
    command: Callable[[Path, int], list[str]]
    """What starts it, from the directory of its commands and a port."""
    usage: bool
    """Whether it sends usage in a stream when asked."""
    unknown: tuple[int, str] | None
    """Our status and code when it is asked for a model that it does not have; None: it does not look at the name."""


LLAMA_CPP = Kind(
    "llama-cpp",
    "gguf",
    lambda bin, port: [
        *(str(bin / "python"), "-m", "llama_cpp.server", "--model", "tiny/tiny.gguf", "--model_alias", "tiny"),
        # Its default is to end the stream that is under way when the next request comes.
        *("--interrupt_requests", "false", "--n_ctx", "16384", "--host", "127.0.0.1", "--port", str(port)),
    ],
    usage=False,
    unknown=None,
)
TRANSFORMERS = Kind(
    "transformers",
    "huggingface",
    lambda bin, port: [
        *(str(bin / "transformers"), "serve", "tiny", "--device", "cpu", "--log-level", "info"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ],
    usage=True,
    unknown=(400, "upstream_rejected"),
)
VLLM = Kind(
    "vllm",
    "huggingface",
    lambda bin, port: [
        # Not `vllm serve`, which asks for the version of a package that has another name here.
        *(str(bin / "python"), "-m", "vllm.entrypoints.openai.api_server", "--model", "tiny"),
        *("--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", "--max-model-len", "16384"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ],
    usage=True,
    unknown=(404, "model_not_found"),
)


def launch_server(kind: Kind, directory: Path) -> Server:
    """Start one with a model made on the spot; its url includes /v1."""
    commands = environment(kind.name)
    model = directory / "tiny"
    model.mkdir()
    maker = [str(commands / "python"), str(Path(__file__).parent / "tiny_model.py"), kind.form, str(model)]
    made = subprocess.run(maker, capture_output=True, text=True, check=False, env=os.environ | _OFFLINE)
    assert made.returncode == 0, made.stderr
    port = free_port()
    # Found first on its path: a server's helpers have the names of ours.
    env = _OFFLINE | {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": ""}
    server = Server(kind.command(commands, port), log_file(directory, kind.name), env)
    return _ready(server, port)


def launch_litellm(directory: Path, upstream: Server) -> Server:
    """Start LiteLLM's proxy, which passes any model on to *upstream*; its url includes /v1."""
    config = directory / "litellm.yaml"
    config.write_text(
        "model_list:\n"
        f"  - {{model_name: '*', litellm_params: {{model: 'openai/*', api_base: '{upstream.url}', api_key: none}}}}\n"
        "router_settings: {num_retries: 0}\n"
        "litellm_settings: {num_retries: 0}\n"
    )
    port = free_port()
    command = [str(environment("litellm") / "litellm"), "--config", str(config), "--telemetry", "False"]
    env = {
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # loopback, for a test
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # its own list of prices, not the one in the network
        "PYTHONPATH": "",
    }
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return _ready(Server(command, log_file(directory, "litellm"), env), port)


def _ready(server: Server, port: int) -> Server:
    server.url = f"http://127.0.0.1:{port}/v1"
    try:
        server.awaits(r"Application startup complete", _READY)
        server.awaits(rf"Uvicorn running on \S+:{port}|vllm", _READY)
    except BaseException:
        server.stop()
        raise
    return server


def processor_time(process: Process) -> float:
    """Return the seconds of processor time that it and its children have used."""
    used = 0
    waiting = [process.popen.pid]
    while waiting:
        pid = waiting.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            tasks = Path(f"/proc/{pid}/task").iterdir()
            waiting += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except FileNotFoundError:  # it ended meanwhile
            continue
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")
