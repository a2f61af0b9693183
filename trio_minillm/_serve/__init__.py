"""A server of model answers whose timing is known: what a benchmark measures can be checked against it.

It is the command ``trio-minillm serve``, and in Python::

    async with open_timed_server(ServeOptions(ttft=0.3, itl=0.02, tokens=64)) as server:
        ...  # stream from server.base_url
        server.metrics()["ttft"]["p50"]

Every send has a due time, one task sends whatever is due over all streams, and each request is recorded
as the server did it.
"""

from .options import ServeOptions
from .records import ServedRecord
from .server import TimedServer, open_timed_server

__all__ = ["ServeOptions", "ServedRecord", "TimedServer", "open_timed_server"]
