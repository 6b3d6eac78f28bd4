"""The event loop policy and the loop factory.

asyncio deprecates policies from 3.14 on and removes them in 3.16; until then ``asyncio.run``
without a ``loop_factory`` finds its loop through one. This module reads the interpreter's own
policy class without touching the deprecated public names, so that importing it never warns.
"""

from asyncio import events, unix_events
from typing import TYPE_CHECKING, Any

from rondel.loop import EventLoop

__all__ = ["EventLoopPolicy", "get_policy", "new_event_loop", "new_run_loop", "set_policy"]

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from asyncio import DefaultEventLoopPolicy as _DefaultPolicy
else:
    # 3.14 renamed the class and warns about the public alias.
    _DefaultPolicy = getattr(unix_events, "_DefaultEventLoopPolicy", None)
    if _DefaultPolicy is None:
        _DefaultPolicy = unix_events.DefaultEventLoopPolicy


def new_event_loop() -> EventLoop:
    """A new native event loop; also the value for every ``loop_factory`` parameter."""
    return EventLoop()


class EventLoopPolicy(_DefaultPolicy):
    """asyncio's default policy, child watchers included, with native loops."""

    # The hook asyncio's own policies use: `new_event_loop()` calls it.
    _loop_factory = EventLoop


def get_policy() -> Any:
    """The policy in force, None if nobody asked for one yet (reading must not create one)."""
    return events._event_loop_policy  # type: ignore[attr-defined]


def set_policy(policy: Any) -> None:
    """Set the policy (None: asyncio's default, made when first needed) without warning."""
    setter = getattr(events, "_set_event_loop_policy", None) or events.set_event_loop_policy
    setter(policy)


def new_run_loop() -> "AbstractEventLoop":
    """A loop for ``run()`` and ``Runner`` without a factory: native, unless the program's own
    policy makes loops.

    asyncio's runner asks the policy for its loop (Python docs: *Policies*), so a policy that the
    program has set decides here, too. One that leaves the making to asyncio's default policy, as
    those that only change ``get_event_loop()`` do, gets native loops.
    """
    policy = get_policy()
    if policy is None or _leaves_the_making_to_asyncio(policy):
        return new_event_loop()
    made: AbstractEventLoop = policy.new_event_loop()
    return made


def _leaves_the_making_to_asyncio(policy: Any) -> bool:
    make = getattr(policy.new_event_loop, "__func__", None)
    default: Any = _DefaultPolicy
    return make is default.new_event_loop and policy._loop_factory is default._loop_factory
