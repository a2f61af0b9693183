"""Many requests under one control of concurrency, rates, retries and money."""
