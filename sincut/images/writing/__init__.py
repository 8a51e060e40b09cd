"""Any output format from bands of rows."""
