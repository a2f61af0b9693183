"""Other people's programs, with this library as their client. Each needs an extra of its own.

``inspect_ai`` and ``lm_eval`` register a model with the evaluator of that name; ``ray`` maps
batches over a cluster (`trio_minillm.batch.on_ray`).
"""
