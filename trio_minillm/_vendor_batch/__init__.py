"""Many requests in the vendors' own batches: sent as a whole, answered within a day, at half the price."""
