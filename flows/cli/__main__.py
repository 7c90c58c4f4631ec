"""`python -m flows.cli`, where the command is not installed."""

from flows.cli import main

main()
