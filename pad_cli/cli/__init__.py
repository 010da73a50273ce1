"""The command line (floor 7): argv in, text out, exit code. Every command is a call of the public API."""
