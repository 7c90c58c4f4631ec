"""What runs, in what order: one flow each, and the command line over them."""

from flows.running import environment, signals

# Before any module of this room imports prefect or distributed.
environment.prepare()
signals.install_in_program()
