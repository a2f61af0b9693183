"""What each attempt cost: ledgers, budgets, settlement, estimates and prices."""
