"""Decisions that never wait: when a batch sends a request, and whether it sends it again. Pure.

`throttle` is the place to begin: it says what a request may wait for, and which file decides it.

**Principle: a cut must pay.** Whatever is lowered because requests are refused (the rate, the number at
once) stays lower only if a smaller share of them is refused for it.

**Model.** Of x requests a second (or at once), a server refuses the share p(x). Where a limit L is what
refuses, p(x) = max(0, 1 - L/x); where it is chance, or a shortage that is not ours, p is the same for
every x; where the server is down, p = 1. One answer can't tell them apart. Two loads can:

- At four fifths of what was *accepted*, a limit refuses nothing, chance as many as before. `CutTest`
  weighs p/10 against p, by Wald's sequential test at odds of 50. Chance of 20 % shows after 13 answers on
  average, of 50 % after 5 (never fewer than 10 are taken), of 5 % after 55 (the likelier of the two is
  taken at 40); a limit that had refused 20 % shows after 26.
- At four times the rate, a limit accepts no more, so that p rises to 1 - (1 - p)/4; chance accepts four
  times as many. `Doubt` goes by which of the two is nearer, after 24 answers.
- Where a window of so many seconds is used up, p = 1 until it ends; then p = 0 until as many are accepted
  again. A server that was out of order accepts more (`Window`).
- Where the number at once is what limits, p depends on how many are under way, which a rate does not:
  `AtOnce` compares the number at each refusal with the numbers at which others were accepted.
- A server that is down is told by failures in a row that the share before them makes unlikely (one in a
  thousand), and is then asked by one request at a time (`CircuitBreaker`).
- A request is told from its server in the same way: by failures in a row that are unlikely at the share
  of the others (`OwnFaults`).
- A server that will refuse everything is told by its first refusals, ten of one cause, or by four that
  ask for a wait of hours with nothing accepted meanwhile (`Prospects`). The run then closes the lane.

**Comparison.** AIMD takes each refusal for congestion: at a share p of chance it settles at about
sqrt(1.5/p) requests a round trip, whatever the server could take (Mathis et al., 1997). The gradient
limiters of the literature go by latency, which is the same below a limit and above it where a server
refuses instead of queueing; `ConcurrencyLimit` goes by throughput, and uses latency nowhere.

**Numbers.** Each is where it is used. The table of ``benchmarks/control.py`` that would change it:

=============================================================  ===================================
number                                                         table
=============================================================  ===================================
`CutTest`: ``PAYS``, ``SURE``, ``LEAST``, ``ENOUGH``           ``random``, for its 5 and 50 %
``BELOW``, ``RARE``, ``FEW``, ``CHANCE``, ``CHECK``,           ``random``, for its short runs,
``BLOCK``, ``TWICE``, ``RECENT``                               against ``limits``, for its refusals
``TRIAL``, ``STEP``, ``REST``, ``LONGEST_REST``                ``limits``: refusals, against
                                                               ``random``: 50 %
``EARLY``, ``EARLY_ABOVE``, ``CONTRADICTIONS``                 ``random`` of 3,000, against a limit
                                                               that falls
``MOSTLY``, ``NO_CHANCE``, ``LEAST_ROW``, ``OUTRUN``,          ``outages``, against ``random``:
``FIRST_PAUSE``, ``LONGEST_PAUSE``, ``UNTOLD_PAUSE``           50 %
`LearnedRate`: ``SWING``, ``BACK_*``, ``HELD*``, ``FAR``       ``limits``: second, bucket
the same: ``DRY_SECONDS``, ``DROP``, ``FIRST``, ``LEAST*``;    ``limits``: minutes and ten seconds,
`Window`: ``SPAN``, ``ENOUGH``, ``EXCEEDED``, ``AHEAD``        against ``outages`` as 429
`AtOnce`: ``SURE``, ``REST``, ``TRIALS``                       ``limits``: 10 at once
``SUSPECT``, ``CERTAIN``, ``ANSWERS``, ``SERVING_SECONDS``,    ``single``, against ``random``: 50 %
``REFUSALS``
`ConcurrencyLimit`: ``START``, ``WORTH_*``, ``STEP``,          ``latency``
``RAISE``, ``MAX_REST``
=============================================================  ===================================
"""
