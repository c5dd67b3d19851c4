"""chat-sse: streams OpenAI chat completions over Server-Sent Events."""

__version__ = "0.1.0"
