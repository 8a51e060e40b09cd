"""Devices, precision, memory, CUDA graphs."""
