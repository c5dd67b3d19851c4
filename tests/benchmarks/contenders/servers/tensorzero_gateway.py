"""TensorZero's gateway, the one that its Python package brings along and serves over HTTP for OpenAI's clients.

`python tensorzero_gateway.py CONFIG`; says where it listens and waits to be ended.
"""

# The package is in the contender's own virtual environment, not where mypy looks.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import signal
import sys

from openai import OpenAI
from tensorzero import patch_openai_client

if __name__ == "__main__":
    client = patch_openai_client(OpenAI(api_key="none"), config_file=sys.argv[1], async_setup=False)
    print(f"listens on {str(client.base_url).rstrip('/')}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
