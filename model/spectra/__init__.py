"""Signals into frames and back, and the warped frequency axis of the networks."""
