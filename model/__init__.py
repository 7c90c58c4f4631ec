"""Torch and maths: front end, networks, separation, training, scoring. No files, no flows."""
