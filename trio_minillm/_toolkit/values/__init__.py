"""Values of an answer while they arrive: fields, elements of lists, calls, partial values."""
