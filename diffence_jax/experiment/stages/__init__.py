"""The stages of an experiment, one file each; `experiment.plan` puts them together."""
