"""`python -m pad_cli`."""

from pad_cli.cli.main import main

main()
