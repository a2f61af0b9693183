"""Several models in place of one: hedging, and fallback."""
