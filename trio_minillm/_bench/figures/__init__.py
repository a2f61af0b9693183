"""Figures out of records: distributions, rates, goodput. Pure: records in, values out."""
