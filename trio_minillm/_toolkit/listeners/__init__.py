"""Many listeners to one stream, and the way out of it as server-sent events."""
