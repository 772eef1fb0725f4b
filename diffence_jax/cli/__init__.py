"""The command `diffence`, one file a subcommand."""
