"""Tests of compute/."""
