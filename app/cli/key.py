"""`chat-sse key`: make an API key, and the line of settings that accepts it."""

from __future__ import annotations

import argparse

from app.cli.process import Commands, add_command, complain, say
from app.composition.settings import PREFIX
from app.edge.access import api_keys
from app.request import UNLIMITED


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Say which arguments the command takes."""
    parser = add_command(
        commands,
        "key",
        "make an API key, and the line of settings that accepts it",
        "Make an API key, which is printed and stored nowhere, and the line of settings that accepts it.",
        "example:\n  chat-sse key web",
    )
    parser.add_argument("name", help="the key's name in logs: letters, digits, '.', '_' and '-'")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    key = api_keys.new_key()
    line = f"{arguments.name}:{api_keys.digest(key)}"
    try:
        api_keys.parse(line, UNLIMITED)
    except ValueError as error:
        return complain(str(error))
    print(key)
    say(f"This is the only time it is shown. To let it in: {PREFIX}API_KEYS={line}")
    return 0
