"""The loop, the step, the losses, the state."""
