"""Values: messages, parameters, chunks, responses, costs, options and errors. Nothing here waits."""
