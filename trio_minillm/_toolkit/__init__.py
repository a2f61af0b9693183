"""Parts that applications build on streams; the streams themselves know nothing of them.

Each folder is one part, and is loaded when it is first used: `streams` has the methods that lead to them.

values      fields, elements and calls while an answer arrives
listeners   many listeners to one stream, and server-sent events out of it
choices     several models in place of one
observers   what is told of each attempt: a program, OpenTelemetry, the log
tools       the loop of a model with tools
reasking    the second question after an answer that is not valid
"""
