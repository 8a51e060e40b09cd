"""Image files of any size and depth: read by rows, written by bands, nothing lost on the way.

``sources`` and ``outputs`` are what the rest of the package talks to; ``images`` has whole images.
No torch in here.
"""
