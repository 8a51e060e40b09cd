"""Any image file as rows of pixels."""
