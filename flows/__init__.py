"""What runs, in what order: one flow each, and the command line over them."""
