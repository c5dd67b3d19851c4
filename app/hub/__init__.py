"""The lifetimes of streams."""

from app.hub.hub import FIRST_READER, Capacity, Hub, Key
from app.hub.outcome import Observer, Outcome
from app.hub.stream import parse_policy
from app.hub.subscription import Subscription

__all__ = ["FIRST_READER", "Capacity", "Hub", "Key", "Observer", "Outcome", "Subscription", "parse_policy"]
