"""Figures for a translation, and anchors to compare them with."""
