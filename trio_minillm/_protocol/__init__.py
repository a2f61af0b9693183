"""The protocol: requests as bytes, bodies as chunks, chunks as a response. No I/O, no clock."""
