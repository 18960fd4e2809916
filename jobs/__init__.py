"""One file per command, and the command line."""
