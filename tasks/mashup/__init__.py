"""Mash-ups: the vocals of one song over the accompaniment of another. One module per idea."""
