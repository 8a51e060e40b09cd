"""Tests of ablation/."""
