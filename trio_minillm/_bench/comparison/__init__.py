"""The comparison of results: what differs between runs, and whether it is more than chance."""
