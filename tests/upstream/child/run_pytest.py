"""pytest with the arguments and conformance's plugin, which streams results."""

import sys

import inject
import pytest

if __name__ == "__main__":
    inject.install()
    sys.exit(pytest.main(["-p", "pytest_events", *sys.argv[1:]]))
