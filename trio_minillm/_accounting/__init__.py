"""The cost of each attempt: ledgers, budgets, settlement, estimates and prices."""
