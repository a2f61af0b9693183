"""Files of a batch: requests in, results out, and the cache of responses."""
