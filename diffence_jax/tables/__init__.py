"""Tables over several runs: defenses, scenarios, seeds."""
