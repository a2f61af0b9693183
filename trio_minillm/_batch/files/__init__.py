"""Requests from files, results into files, and the cache of responses."""
