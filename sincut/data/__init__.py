"""What a training step is fed with."""
