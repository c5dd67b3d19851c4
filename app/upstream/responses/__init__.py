"""The upstreams that speak OpenAI's Responses."""
