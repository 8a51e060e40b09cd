"""The parts of HTML pages that people open from disk, and of Markdown."""
