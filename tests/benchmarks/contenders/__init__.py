"""What is compared: the service's variants, and its peers. Adding one is adding a `Contender`."""

from __future__ import annotations

from tests.benchmarks.contenders.ground import Contender, Ground, Running
from tests.benchmarks.contenders.ours import OURS
from tests.benchmarks.contenders.packages import Missing
from tests.benchmarks.contenders.peers import ABSENT, NGINX, PEERS

CONTENDERS = {contender.name: contender for contender in (NGINX, *OURS, *PEERS)}

__all__ = ["ABSENT", "CONTENDERS", "NGINX", "OURS", "PEERS", "Contender", "Ground", "Missing", "Running"]
