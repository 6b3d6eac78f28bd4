"""Fixtures of the runtime's tests."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.runtime.timing import Taken


@pytest.fixture
def taken() -> "Taken":
    """Collects what `timed` reports."""
    from tests.runtime.timing import Taken

    return Taken()
