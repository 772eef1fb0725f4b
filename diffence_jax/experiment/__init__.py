"""Experiments: from a config to a report, stage by stage, resumable."""
