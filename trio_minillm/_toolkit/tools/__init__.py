"""The loop of a model with tools."""
