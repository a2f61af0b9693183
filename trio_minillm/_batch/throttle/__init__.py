"""Decisions on when a request may be sent. Pure: no I/O, and the time is an argument."""
