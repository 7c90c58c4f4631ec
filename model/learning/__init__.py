"""What a training step is made of: mixing, augmentation, losses, the optimiser's loop."""
