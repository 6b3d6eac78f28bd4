"""All workloads: importing a module of them adds its own."""

import tests.safety.accepted
import tests.safety.bridging
import tests.safety.locks
import tests.safety.loops
import tests.safety.pipes
import tests.safety.sockets
import tests.safety.tls  # noqa: F401
from tests.safety.workloads import WORKLOADS

__all__ = ["WORKLOADS"]
