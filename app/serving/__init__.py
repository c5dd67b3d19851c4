"""Processes that serve the application."""
