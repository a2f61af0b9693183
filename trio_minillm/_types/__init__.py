"""Values without behaviour over time: messages, parameters, chunks, responses, costs, errors."""
