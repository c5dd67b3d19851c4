"""The lifetimes of streams."""

from app.hub.hub import FIRST_READER, Capacity, Hub, Key, Observer
from app.hub.stream import Stream, parse_policy
from app.hub.subscription import Subscription

__all__ = ["FIRST_READER", "Capacity", "Hub", "Key", "Observer", "Stream", "Subscription", "parse_policy"]
