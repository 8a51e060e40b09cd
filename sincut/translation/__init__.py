"""Images, window by window, to files."""
