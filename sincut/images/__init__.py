"""Image files: read in rows, written in bands."""
