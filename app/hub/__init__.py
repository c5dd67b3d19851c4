"""The lifetimes of streams."""

from app.hub.hub import Capacity, Hub
from app.hub.outcome import Observer, Outcome
from app.hub.ownership import IdempotencyKey, payer
from app.hub.spending import Spending
from app.hub.stream import parse_disconnect_policy
from app.hub.subscription import Subscription

__all__ = [
    "Capacity",
    "Hub",
    "IdempotencyKey",
    "Observer",
    "Outcome",
    "Spending",
    "Subscription",
    "parse_disconnect_policy",
    "payer",
]
