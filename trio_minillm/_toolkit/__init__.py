"""Parts that applications build on streams; the streams themselves know nothing of them.

Each is loaded when it is first used: `streams` has the methods that lead to them.
"""
