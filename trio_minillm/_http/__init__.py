"""HTTP/1.1 on Trio, and the seam to httpx.

Each of these knows those before it: ``http1`` (bytes), ``connection`` (a socket), ``pool``,
``roundtrip`` (a request on a connection of the pool), ``transport`` (the face for httpx); beside them
``exchange``, with ``trio_exchange`` and ``httpx_exchange``, from which ``connector`` chooses for a client.

httpx takes half as long to import as all else that a program needs. So its face, and whatever else is
for programs that bring something of it or have a proxy, is imported inside of functions; the rest does
without: ``transport_errors``, ``urls`` and ``tls`` stand in for it.
"""
