"""The forms in which a result is told. Pure, but for those that write files."""
