"""Tests of translation/."""
