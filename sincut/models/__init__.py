"""Networks, their parts and their files."""
