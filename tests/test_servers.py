"""Every difference of a known server is handled as docs/servers/servers.md says.

The page is made of the same data, and a test fails when it differs:
``TRIO_MINILLM_WRITE=1 python -m pytest tests/test_servers.py -k the_page`` writes it anew.
"""

from __future__ import annotations

import os

import pytest

from .support.paths import doc
from .support.servers import Difference
from .support.servers.answers import ANSWERS
from .support.servers.costs import COSTS
from .support.servers.refusals import REFUSALS
from .support.servers.requests import REQUESTS
from .support.servers.transport import TRANSPORT

AREAS = {
    "Answers": ANSWERS,
    "Refusals": REFUSALS,
    "Requests": REQUESTS,
    "Usage and costs": COSTS,
    "Connections": TRANSPORT,
}
ALL = [difference for area in AREAS.values() for difference in area]

HEAD = """# Servers

Look up how a server differs from the reference of the wire format that it speaks, and how the client handles the difference. A server
that is not listed gets the common rules of [Providers](providers.md). Every row is checked by a test.

The tables below list differences in [answers](#answers), [refusals](#refusals), [requests](#requests),
[usage and costs](#usage-and-costs), and [connections](#connections). The last column names the source of the fact.
"""


def page() -> str:
    out = [HEAD]
    for title, area in AREAS.items():
        if not area:
            continue
        rows = [
            "| server | what the server does | what you get | source |",
            "| --- | --- | --- | --- |",
        ]
        for d in sorted(area, key=lambda d: d.server.lower()):
            rows.append(f"| {d.server} | {d.does} | {d.handled} | {d.source} |")
        out.append(f"\n## {title}\n\n" + "\n".join(rows) + "\n")
    return "".join(out)


@pytest.mark.parametrize("difference", ALL, ids=[f"{d.server}: {d.does}" for d in ALL])
def test_it_is_handled_as_the_page_says(difference: Difference) -> None:
    difference.check()


def test_the_page_says_what_is_tested() -> None:
    path = doc("servers.md")
    if os.environ.get("TRIO_MINILLM_WRITE"):
        path.write_text(page(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == page()
