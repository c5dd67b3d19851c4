"""What deploy/ ships for containers, Kubernetes and Redis: it fits the service, and it fits together."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own, and we only load
from redis import Redis
from structlog.typing import FilteringBoundLogger

import app.hub
import app.serving.protocol
import app.serving.workers
import app.telemetry.otlp
from app.composition.service import compose
from app.composition.settings import PREFIX, Settings, load
from app.journal.file.address import parse_address
from app.journal.redis.timing import USUAL
from tests.ports import free_port
from tests.real.processes import Process, check_nginx, log_file

DEPLOY = Path(__file__).parent.parent / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
INSTANCES = {name: it for name, it in COMPOSE["services"].items() if it["image"] == "chat-sse"}
MANIFEST = (DEPLOY / "kubernetes.yaml").read_text()
RESOURCES: dict[str, Any] = {it["kind"]: it for it in yaml.safe_load_all(MANIFEST)}
DEPLOYMENT = RESOURCES["Deployment"]["spec"]
POD = DEPLOYMENT["template"]["spec"]
[CONTAINER] = POD["containers"]
# What the manifest's head says to put into the Secret.
SECRET = {name: value.strip("'\"") for name, value in re.findall(r"--from-literal=(\w+)=('.*?'|\".*?\"|\S+)", MANIFEST)}
# Seconds that a process takes at most after its grace: for the upstream's sockets, the last events, Redis and OTLP.
LAST = app.hub.hub._CLOSE_WAIT + app.serving.protocol.LAST_ANSWERS + USUAL.flush + app.telemetry.otlp._LAST_EXPORT


def default(name: str) -> Any:
    return Settings.model_fields[name].default


def number(quantity: str) -> int:
    """Return seconds or bytes."""
    match = re.fullmatch(r"(\d+)(s|Mi|Gi|M|m|g)", quantity)
    assert match is not None, quantity
    return int(match[1]) * {"s": 1, "Mi": 1 << 20, "Gi": 1 << 30, "M": 1 << 20, "m": 1 << 20, "g": 1 << 30}[match[2]]


def labelled(selector: dict[str, Any]) -> bool:
    """Whether it selects our pods."""
    labels: dict[str, str] = DEPLOYMENT["template"]["metadata"]["labels"]
    return bool(selector) and selector.items() <= labels.items()


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a pod, which this process then has."""
    for name in list(os.environ):
        if name.startswith((PREFIX, "OPENAI_")):
            monkeypatch.delenv(name)
    [set_by_image] = re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)
    image = dict(re.findall(rf"({PREFIX}\w+)=(\S+)", set_by_image))
    made = {name: "0" * 64 for name, value in SECRET.items() if value.startswith("$")}
    made["CHAT_SSE_API_KEYS"] = f"web:{'0' * 64}"  # shortened there
    variables = {**image, **RESOURCES["ConfigMap"]["data"], **SECRET, **made}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml", "redis.conf", "nginx.conf", "Dockerfile"])
def test_settings(name: str) -> None:
    """A setting that a file names, in a comment too, is one that there is."""
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+", (DEPLOY / name).read_text()))
    assert named - {f"{PREFIX}{field.upper()}" for field in Settings.model_fields} == set()


def test_image(pod: dict[str, str]) -> None:
    """Compose and Kubernetes run what the Dockerfile builds: its user, its port, its command, Redis' client with it."""
    assert re.search(r" install .*\.\[[^\]]*\bredis\b[^\]]*\]", DOCKERFILE), "the image cannot speak to Redis"
    assert (DEPLOY / COMPOSE["x-chat-sse"]["build"]["context"] / "deploy" / "Dockerfile").samefile(
        DEPLOY / "Dockerfile"
    )
    for instance in INSTANCES.values():
        assert not {"user", "entrypoint", "command"} & set(instance)
    assert f"CMD {json.dumps(CONTAINER['args'])}" in DOCKERFILE
    assert "command" not in CONTAINER
    context = POD["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in DOCKERFILE
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"http": load(None).port}
    assert f"EXPOSE {ports['http']}\n" in DOCKERFILE


def test_the_unit_has_time_to_end() -> None:
    """systemd kills the service after a supervisor has killed its workers, and that after they should have ended."""
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "chat-sse.service").read_text(), re.MULTILINE)
    assert int(seconds) > default("shutdown_grace") + app.serving.workers.END_TIMEOUT > default("shutdown_grace") + LAST


def test_the_socket_is_where_the_service_listens() -> None:
    """systemd listens before it starts the service, at the service's default address."""
    settings = load(None)
    assert f"ListenStream={settings.host}:{settings.port}\n" in (DEPLOY / "chat-sse.socket").read_text()
    unit = (DEPLOY / "chat-sse.service").read_text()
    for order in ("After", "Wants"):
        assert re.search(rf"^{order}=.*\bchat-sse\.socket$", unit, re.MULTILINE)


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The systemd units, of a service whose program is there."""
    paths = [tmp_path / name for name in ("chat-sse.service", "chat-sse.socket")]
    for path in paths:
        path.write_text((DEPLOY / path.name).read_text().replace("/opt/chat-sse/bin/chat-sse", "/bin/true"))
    return paths


def systemd_analyze(*arguments: str | Path) -> tuple[int, str]:
    """Return its status, and what it said on its standard error."""
    assert shutil.which("systemd-analyze"), "apt-get install --no-install-recommends systemd"
    ran = subprocess.run(
        ["systemd-analyze", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60
    )
    return ran.returncode, ran.stderr


@pytest.mark.real
def test_systemd_takes_the_units(units: list[Path]) -> None:
    """systemd understands every line of the units."""
    status, said = systemd_analyze("verify", "--man=no", *units)
    assert (status, [line for line in said.splitlines() if "chat-sse" in line]) == (0, [])


@pytest.mark.real
def test_systemd_calls_the_unit_confined(units: list[Path]) -> None:
    """By systemd's own count of what a unit may do, from 0 to 10, the service is exposed to 1.2 at most."""
    assert systemd_analyze("security", "--offline=yes", "--no-pager", "--threshold=12", units[0]) == (0, "")


def test_the_unit_is_confined() -> None:
    """Its memory holds the logs and then some; it sees no other process, and no cloud's metadata."""
    unit = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / "chat-sse.service").read_text(), re.MULTILINE))
    assert number(unit["MemoryMax"]) >= default("max_total") + (256 << 20)
    assert unit["ProtectProc"] == "invisible"
    assert "link-local" in unit["IPAddressDeny"].split()


def test_images() -> None:
    """Each image is one by its digest, which the person who runs it can replace."""
    pinned = r"[a-z]+:[0-9.]+(?:-[a-z]+)?@sha256:[0-9a-f]{64}"
    [base] = re.findall(r"^ARG BASE=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(pinned, base)
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert COMPOSE["x-chat-sse"]["build"]["args"] == ["BASE"]
    for name in COMPOSE["services"].keys() - INSTANCES.keys():
        assert re.fullmatch(rf"\$\{{{name.upper()}_IMAGE:-{pinned}\}}", COMPOSE["services"][name]["image"])


def test_compose_memory() -> None:
    """Each container has a limit, which holds what it may keep."""
    limits = {name: number(service["mem_limit"]) for name, service in COMPOSE["services"].items()}
    assert all(limits[name] >= default("max_total") + (256 << 20) for name in INSTANCES)
    [maxmemory] = re.findall(r"^maxmemory (\d+)gb$", (DEPLOY / "redis.conf").read_text(), re.MULTILINE)
    assert limits["redis"] >= 2 * int(maxmemory) << 30


def test_compose() -> None:
    """Two instances that share a journal, behind nginx and nothing else, each with the time that it takes to end."""
    services = COMPOSE["services"]
    assert len(INSTANCES) == 2
    for instance in INSTANCES.values():
        journal = re.sub(r"\$\{\w+:-(.*)\}", r"\1", instance["environment"]["CHAT_SSE_JOURNAL"])
        assert httpx.URL(journal).host in services
        assert httpx.URL(journal).host in instance["depends_on"]
        assert number(instance["stop_grace_period"]) >= default("shutdown_grace") + LAST
    assert services["nginx"]["environment"]["SERVERS"] == f"${{SERVERS:-{' '.join(INSTANCES)}}}"
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"nginx": ["127.0.0.1:8080:80"]}
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file()


@pytest.mark.real
@pytest.mark.parametrize("servers", ["127.0.0.1", "127.0.0.1 127.0.0.2"])
def test_compose_nginx(servers: str, tmp_path: Path) -> None:
    """What compose makes of nginx.conf has a line for each server, and the real nginx takes it."""
    *shell, script = COMPOSE["services"]["nginx"]["command"]
    made = tmp_path / "nginx.conf"
    for old, new in (
        ("$$", "$"),
        ("/mnt/nginx.conf", str(DEPLOY / "nginx.conf")),
        ("/etc/nginx/nginx.conf", str(made)),
        ("exec nginx -g 'daemon off;'", "true"),
    ):
        assert old in script
        script = script.replace(old, new)
    subprocess.run([*shell, script], env={"SERVERS": servers, "PATH": os.environ["PATH"]}, check=True)
    config = made.read_text()
    assert re.findall(r"^ *(server .*;) *$", config, re.MULTILINE) == [
        " ".join(f"server {server}:8000;" for server in servers.split())
    ]
    check_nginx(tmp_path, config)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A client of the real Redis with the file that is shipped."""
    port = free_port()
    binary = shutil.which("redis-server") or "/usr/bin/redis-server"
    command = [binary, str(DEPLOY / "redis.conf"), "--port", str(port), "--dir", str(tmp_path)]
    server = Process(command, log_file(tmp_path, "redis"))
    try:
        server.awaits("Ready to accept connections")
        with Redis(port=port, decode_responses=True) as client:
            yield client
    finally:
        server.stop()


@pytest.mark.real
def test_redis(redis: Redis) -> None:
    """The real Redis takes the file, throws nothing away, and writes to disk what it is told."""
    assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert redis.config_get("appendonly") == {"appendonly": "yes"}
    assert redis.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert redis.config_get("maxmemory") == {"maxmemory": str(1 << 30)}
    assert redis.config_get("bind") == {"bind": "127.0.0.1 -::1"}


def test_redis_in_compose() -> None:
    """Compose runs Redis with the same file, but reachable for the containers beside it."""
    command = COMPOSE["services"]["redis"]["command"]
    assert command[:2] == ["redis-server", "/mnt/redis.conf"]
    assert command[-2:] == ["--bind", "0.0.0.0"]


# `deploy/run`, with a Python that does what is asked of it by writing that down.


VENV_PYTHON = """#!/bin/sh
echo "pip: $*" >> "$LOG"
printf '#!/bin/sh\\necho "serve: $*" >> "$LOG"\\n' > .venv/bin/chat-sse
chmod +x .venv/bin/chat-sse
"""
PYTHON = f"""#!/bin/sh
case "$*" in
    *version_info*) [ "$VERSION" != 3.9 ] ;;
    --version) echo "Python $VERSION" ;;
    *ensurepip*) true ;;
    "-m venv .venv") mkdir -p .venv/bin && cat > .venv/bin/python <<'END' && chmod +x .venv/bin/python
{VENV_PYTHON}END
    ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with `deploy/run`, and with a `python3` that plays its part."""
    for folder in ("deploy", "bin"):
        (tmp_path / folder).mkdir()
    shutil.copy(DEPLOY / "run", tmp_path / "deploy" / "run")
    shutil.copy(DEPLOY.parent / "pyproject.toml", tmp_path)
    python = tmp_path / "bin" / "python3"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def deploy_run(checkout: Path, version: str, *arguments: str) -> tuple[int, str, str]:
    """Run it; return its status, what it said, and what was done."""
    done = checkout / "done"
    done.write_text("")
    environment = {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}", "LOG": str(done), "VERSION": version}
    command = [str(checkout / "deploy" / "run"), *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    return ran.returncode, ran.stderr, done.read_text()


def test_run_needs_a_python(checkout: Path) -> None:
    """Where Python is too old, `deploy/run` says so at once, and makes and installs nothing."""
    required = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["requires-python"]
    status, said, done = deploy_run(checkout, "3.9")
    assert (status, done) == (1, "")
    assert f"needs Python {required.removeprefix('>=')} or newer, and python3 is Python 3.9" in said
    assert not (checkout / ".venv").exists()


def test_run_keeps_streams(checkout: Path) -> None:
    """`deploy/run` keeps streams in the checkout, unless a setting says otherwise, or nothing can be written there."""
    deploy_run(checkout, "3.11")
    serve = checkout / ".venv" / "bin" / "chat-sse"
    serve.write_text('#!/bin/sh\necho "$CHAT_SSE_JOURNAL" >> "$LOG"\n')
    url = f"file://{checkout}/.chat-sse/{{port}}"
    assert deploy_run(checkout, "3.11") == (0, "", f"{url}\n")
    assert (checkout / ".chat-sse").stat().st_mode & 0o777 == 0o700
    (checkout / ".env").write_text("CHAT_SSE_JOURNAL=memory\n")
    assert deploy_run(checkout, "3.11") == (0, "", "\n")
    (checkout / ".env").unlink()
    (checkout / ".chat-sse").rmdir()
    (checkout / ".chat-sse").touch()
    assert deploy_run(checkout, "3.11") == (0, "", "\n")


def test_the_unit_keeps_streams() -> None:
    """The systemd unit has a folder for streams, which is the service's alone."""
    unit = (DEPLOY / "chat-sse.service").read_text()
    [url] = re.findall(r"^Environment=CHAT_SSE_JOURNAL=(.*)$", unit, re.MULTILINE)
    [name] = re.findall(r"^StateDirectory=(.*)$", unit, re.MULTILINE)
    assert parse_address(url).folder == Path("/var/lib") / name / "{port}"
    assert "StateDirectoryMode=0700" in unit
    assert unit.index("Environment=") < unit.index("EnvironmentFile=")


def test_run_says_what_it_does(checkout: Path) -> None:
    """The first time, `deploy/run` says each step, and serves; from then on it only serves."""
    status, said, done = deploy_run(checkout, "3.11", "--port", "9000")
    assert (status, [line.split()[1] for line in said.splitlines()]) == (0, ["making", "installing"])
    assert re.fullmatch(r"pip: -m pip install .* -e \.\[redis\]\nserve: serve --port 9000\n", done)
    assert deploy_run(checkout, "3.11") == (0, "", "serve: serve\n")


def test_installing_leaves_the_checkout_in_charge() -> None:
    """Where README installs from the checkout, it is editable: a copy would hide later changes."""
    installs = re.findall(r"pip install [^`\n&]*", (DEPLOY / "README.md").read_text())
    assert installs
    assert [line for line in installs if "'." in line and " -e " not in line] == []


def test_names() -> None:
    """The parts of the manifest find one another: pods by their labels, the port by its name, settings by theirs."""
    assert labelled(DEPLOYMENT["selector"]["matchLabels"])
    assert labelled(RESOURCES["Service"]["spec"]["selector"])
    assert labelled(RESOURCES["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])
    assert labelled(RESOURCES["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
    [spread] = POD["topologySpreadConstraints"]
    assert labelled(spread["labelSelector"]["matchLabels"])
    sources = [(kind, source["name"]) for it in CONTAINER["envFrom"] for kind, source in it.items()]
    assert sources == [
        ("configMapRef", RESOURCES["ConfigMap"]["metadata"]["name"]),
        ("secretRef", re.findall(r"create secret generic (\S+)", MANIFEST)[0]),
    ]
    [port] = RESOURCES["Service"]["spec"]["ports"]
    assert port["targetPort"] == CONTAINER["ports"][0]["name"]
    [opened] = RESOURCES["NetworkPolicy"]["spec"]["ingress"]
    assert opened["ports"] == [{"port": CONTAINER["ports"][0]["name"]}]
    [rule] = RESOURCES["Ingress"]["spec"]["rules"]
    for path in rule["http"]["paths"]:
        service = path["backend"]["service"]
        assert (service["name"], service["port"]["name"]) == (RESOURCES["Service"]["metadata"]["name"], port["name"])


def test_rolling_update(pod: dict[str, str]) -> None:
    """No pod goes before its successor is there; it has the time to end; a node that is drained takes one at a time."""
    assert DEPLOYMENT["replicas"] >= 2
    assert DEPLOYMENT["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert RESOURCES["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    command, pause = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    # The Service has to have noticed by then.
    probe = CONTAINER["readinessProbe"]
    assert int(pause) >= probe["periodSeconds"] * probe["failureThreshold"]
    assert POD["terminationGracePeriodSeconds"] >= int(pause) + load(None).shutdown_grace + LAST


def test_confined(pod: dict[str, str]) -> None:
    """A pod has no user's rights and no token, and can write nowhere; its memory holds its logs, and then some."""
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["automountServiceAccountToken"] is False
    # With them, a Service of this name would be a setting, CHAT_SSE_PORT=tcp://..., and no pod would start.
    assert POD["enableServiceLinks"] is False
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert number(CONTAINER["resources"]["limits"]["memory"]) >= load(None).max_total + (256 << 20)


@pytest.mark.anyio
async def test_the_service_in_a_pod(pod: dict[str, str], log: FilteringBoundLogger) -> None:
    """With a pod's settings the service starts; its probes and the Ingress' paths are answered, /metrics is closed."""
    settings = load(None, journal="memory", openai_base_url="http://127.0.0.1:9/v1")
    assert settings.host == "0.0.0.0"
    assert load(None).journal == SECRET["CHAT_SSE_JOURNAL"]
    async with (
        compose(settings, log) as service,
        # The kubelet asks by the pod's address.
        httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://10.0.0.7:8000") as client,
    ):
        probes = {kind: CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {probe["port"] for probe in probes.values()} == {CONTAINER["ports"][0]["name"]}
        for probe in probes.values():
            assert (await client.get(probe["path"])).status_code == 200
        await service.hub.drain(0)
        assert (await client.get(probes["readiness"]["path"])).status_code == 503
        assert (await client.get(probes["liveness"]["path"])).status_code == 200
        [rule] = RESOURCES["Ingress"]["spec"]["rules"]
        shown = {path["path"]: path["pathType"] for path in rule["http"]["paths"]}
        assert shown.pop("/v1") == "Prefix"
        assert set(shown.values()) == {"Exact"}
        for path in shown:
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/metrics")).status_code == 401


def test_ingress() -> None:
    """The Ingress streams: nothing is buffered, silence may last longer than between two keep-alives, bodies fit."""
    prefix = "nginx.ingress.kubernetes.io/"
    said = {name.removeprefix(prefix): value for name, value in RESOURCES["Ingress"]["metadata"]["annotations"].items()}
    assert all(isinstance(value, str) for value in said.values())  # as Kubernetes has it
    assert said["proxy-buffering"] == "off"
    assert said["proxy-http-version"] == "1.1"
    assert int(said["proxy-read-timeout"]) > 2 * default("keep_alive")
    assert said["proxy-body-size"] == f"{default('max_body') >> 20}m"
    assert said["proxy-next-upstream"] == "error timeout"  # and so never a POST that may have been taken
    hosts = [host for it in RESOURCES["Ingress"]["spec"]["tls"] for host in it["hosts"]]
    assert [rule["host"] for rule in RESOURCES["Ingress"]["spec"]["rules"]] == hosts
