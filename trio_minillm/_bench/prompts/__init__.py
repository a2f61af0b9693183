"""Prompts of a benchmark: where they come from, and what is known of them."""
