"""The audit: one classifier behind every policy, attacked and measured."""
