"""Tests of inspection/."""
