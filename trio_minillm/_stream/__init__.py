"""One stream: its task, its clocks, the hand-over to the consumer, and what the user holds."""
