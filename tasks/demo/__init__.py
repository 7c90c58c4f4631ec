"""A little synthetic band, for the demo and the tests."""
