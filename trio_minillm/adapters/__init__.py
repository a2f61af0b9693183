"""Adapters with which other programs use this library. Each needs an extra of its own.

``inspect_ai`` and ``lm_eval`` register a model with the evaluator of that name; ``ray`` runs
batches on a cluster (`trio_minillm.batch.on_ray`).
"""
