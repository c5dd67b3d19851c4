"""The endpoints, by dialect."""
