"""Where spans and metrics go if the program has not said: providers of OpenTelemetry's SDK, as the
`OTEL_*` environment wants them (`--otel`).

The SDK reads most of that environment by itself; the exporters' names are read here, as its own way
to do so wants a launcher around the program.

Invariants: called once per process and signal, after the fork, as exporters start threads; nothing
is imported before.
"""

import atexit
import os
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from rondel.server.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

__all__ = ["INSTALL", "meter_provider", "tracer_provider"]

INSTALL = "pip install 'rondel[otel]'"

# Milliseconds for what is sent when the process ends.
_LAST_WORDS = 5000


def tracer_provider() -> "TracerProvider":
    """What makes spans; to `otlp` if nothing is said.

    Raises UsageError if the SDK or an exporter that is named is not installed.
    """
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        raise UsageError(
            "otel: the program has set no tracer provider, and OpenTelemetry's SDK is not "
            f"installed: {INSTALL}"
        ) from None
    provider = TracerProvider()
    for exporter in _exporters("traces"):
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def meter_provider(*, ours: bool) -> "MeterProvider | None":
    """What counts, or None if nobody wants it counted.

    That is so if nothing is said, and the tracer provider is not ``ours`` or no exporter for `otlp`
    is installed. Raises UsageError if an exporter is named that is not there.
    """
    said = os.environ.get("OTEL_METRICS_EXPORTER", "")
    if not said and not (ours and _named("metrics", "otlp") is not None):
        return None
    exporters = list(_exporters("metrics"))
    if not exporters:
        return None
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    readers = [
        # Prometheus' is a reader itself, which is asked.
        exporter if isinstance(exporter, MetricReader) else PeriodicExportingMetricReader(exporter)
        for exporter in exporters
    ]
    provider = MeterProvider(metric_readers=readers, shutdown_on_exit=False)
    # By itself it waits for half a minute for a collector that does not answer.
    atexit.register(provider.shutdown, _LAST_WORDS)
    return provider


def _exporters(signal: str) -> Iterator[Any]:
    """Those that the environment names for ``traces`` or ``metrics``; none of them for `none`."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    for name in (os.environ.get(variable) or "otlp").split(","):
        name = name.strip()
        if name == "none":
            continue
        make = _named(signal, name)
        if make is None:
            raise UsageError(
                f"otel: no exporter {name!r} is installed ({variable}); {INSTALL} has otlp"
            )
        yield make()


def _named(signal: str, name: str) -> Callable[[], Any] | None:
    """What makes the exporter of this name; None: not installed."""
    if name == "otlp":
        protocol = os.environ.get(
            f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
        ) or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
        name = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    found = list(entry_points(group=f"opentelemetry_{signal}_exporter", name=name))
    return found[0].load() if found else None
