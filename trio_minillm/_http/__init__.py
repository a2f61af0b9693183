"""HTTP/1.1 on Trio, and the seam to httpx.

Each of these knows those before it: ``http1`` (bytes), ``connection`` (a socket), ``pool``,
``roundtrip`` (a request on a connection of the pool), ``transport`` (the face for httpx); beside them
``exchange``, with ``trio_exchange`` and ``httpx_exchange``, from which ``connector`` chooses for a client.
"""
