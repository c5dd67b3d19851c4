"""chat-sse: streams OpenAI chat completions over Server-Sent Events."""

__version__ = "1.0.0"
