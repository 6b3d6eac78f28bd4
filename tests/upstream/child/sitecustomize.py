"""Rondel before anything else, in the child and in every Python process that its tests start.

The interpreter imports this module at its start, before the program. An exception here would only
be printed; `inject.install` makes sure, in the child, that the installation is there.
"""

import os

if os.environ.get("UPSTREAM_SIDE") == "rondel":
    import rondel

    rondel.install()
