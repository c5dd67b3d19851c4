"""Asking over HTTP/1.1."""
