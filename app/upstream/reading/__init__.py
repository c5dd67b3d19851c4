"""Reading what an upstream answers."""
