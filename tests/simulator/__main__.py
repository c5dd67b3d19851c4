"""`python -m tests.simulator`: `chat-sse simulate --port 0`, with the models that only tests and benchmarks use."""

from __future__ import annotations

from app.cli.process import run_loop
from app.cli.simulate import simulate
from tests.simulator.faults import MODELS

if __name__ == "__main__":
    run_loop(simulate("127.0.0.1", 0, MODELS))
