"""The methods that `async with` looks up: bound, they are methods like any other."""

import asyncio
import gc
import inspect
import pickle
import types
import weakref
from types import ModuleType
from typing import Any

import pytest

KINDS = ["Lock", "Semaphore", "Condition", "Barrier", "Timeout"]
METHODS = ["__aenter__", "__aexit__"]


def make(aio: ModuleType, kind: str) -> Any:
    match kind:
        case "Barrier":
            return aio.Barrier(1)
        case "Timeout":
            return aio.timeout(None)
    return getattr(aio, kind)()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
async def test_a_bound_method_is_one(aio: ModuleType, kind: str, method: str) -> None:
    it = make(aio, kind)
    bound = getattr(it, method)
    assert isinstance(bound, types.MethodType) and inspect.ismethod(bound)
    assert callable(bound) and inspect.iscoroutinefunction(bound)
    assert bound.__self__ is it and bound.__name__ == method
    assert bound.__func__ is inspect.getattr_static(type(it), method)
    assert repr(bound).startswith("<bound method ") and repr(it) in repr(bound)


@pytest.mark.parametrize("kind", KINDS)
async def test_bound_methods_are_equal_by_what_they_are_bound_to(
    aio: ModuleType, kind: str
) -> None:
    it, other = make(aio, kind), make(aio, kind)
    bound = it.__aenter__
    assert bound == it.__aenter__ and hash(bound) == hash(it.__aenter__)
    assert bound != it.__aexit__ and bound != other.__aenter__ and bound != it
    assert bound == types.MethodType(bound.__func__, it)
    assert types.MethodType(bound.__func__, it) == bound
    with pytest.raises(TypeError):
        bound < it.__aenter__  # noqa: B015


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
async def test_the_signature_is_that_of_asyncio(aio: ModuleType, kind: str, method: str) -> None:
    stock = inspect.signature(getattr(make(asyncio, kind), method))
    assert inspect.signature(getattr(make(aio, kind), method)) == stock


async def test_a_bound_method_of_a_timeout_is_pickled_with_it(aio: ModuleType) -> None:
    again = pickle.loads(pickle.dumps(aio.timeout_at(5.0).__aenter__))
    assert again.__self__.when() == 5.0
    async with again.__self__:
        pass


async def test_a_weak_reference_ends_with_the_bound_method(aio: ModuleType) -> None:
    bound = aio.timeout(None).__aenter__
    ref = weakref.ref(bound)
    assert ref() is bound
    del bound
    assert ref() is None


async def test_what_is_bound_is_called_with_the_arguments_given(aio: ModuleType) -> None:
    scope = aio.timeout(None)
    enter, leave = scope.__aenter__, scope.__aexit__
    with pytest.raises(TypeError):
        enter(1)
    assert await enter() is scope
    assert await leave(None, None, None) is None
    assert type(scope).__aexit__.__get__(None, type(scope)) is type(scope).__aexit__


@pytest.mark.parametrize("kind", KINDS)
async def test_a_block_that_nobody_will_go_on_with_is_collected(aio: ModuleType, kind: str) -> None:
    class Witness:
        pass

    async def block(witness: Witness) -> None:
        async with make(aio, kind):
            await aio.get_running_loop().create_future()

    def begin() -> weakref.ref[Witness]:
        witness = Witness()
        coro = block(witness)
        coro.send(None)
        # Its own frame keeps it: through the block's bound method, and by itself.
        witness.coro = coro  # type: ignore[attr-defined]
        return weakref.ref(witness)

    ref = begin()
    gc.collect()
    assert ref() is None


async def test_the_deadline_of_a_delay_stays_one_object(aio: ModuleType) -> None:
    loop = aio.get_running_loop()
    before = loop.time()
    scope = aio.timeout(5)
    when = scope.when()
    assert type(when) is float and before + 5 <= when <= loop.time() + 5
    assert scope.when() is when
    async with scope:
        assert scope.when() is when
        scope.reschedule(7)
        assert scope.when() == 7


async def test_a_delay_that_is_no_number_is_none_the_less_a_deadline(aio: ModuleType) -> None:
    scope = aio.timeout(float("nan"))
    assert scope.when() != scope.when()
