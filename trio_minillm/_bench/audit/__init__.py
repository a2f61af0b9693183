"""The audit of a run: how much of what was measured is the client's own doing."""
