"""Mash-ups: the vocals of one song over the accompaniment of another. A module an idea."""
