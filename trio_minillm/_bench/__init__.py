"""The benchmark: loads, records of requests, figures. ``trio-minillm bench`` is its command.

A plan (`plan`) says what to send and when. A load (`load`) sends it and makes one record (`record`)
of each request, with every time that was observed. Everything that is reported is computed from
these records (`figures`), so that whoever has them can compute it again.
"""
