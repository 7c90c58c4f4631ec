"""Mixtures into stems: streams of our networks, other people's separators, sums that hold."""
