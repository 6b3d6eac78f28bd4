"""What both engines report: `db-opened` and `db-closed`, each with the connection's number."""

import itertools
from typing import Any

from rules_site.events import record

_numbers = itertools.count(1)


class Reporting:
    """Mixed into a DatabaseWrapper."""

    number = 0  # of the connection that is open, counted over the process

    def get_new_connection(self, conn_params: Any) -> Any:
        """Open, and report."""
        connection = super().get_new_connection(conn_params)  # type: ignore[misc]
        self.number = next(_numbers)
        record("db-opened", connection=self.number)
        return connection

    def _close(self) -> None:
        if self.connection is not None:  # type: ignore[attr-defined]
            record("db-closed", connection=self.number)
        super()._close()  # type: ignore[misc]
