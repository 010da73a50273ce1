"""The command line (floor 7): argv in, text out, exit code. Commands print what the package returned."""
