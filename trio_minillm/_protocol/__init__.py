"""One answer as bytes and values: the request, framing, decoding, and the state machine. No I/O, no clock."""
