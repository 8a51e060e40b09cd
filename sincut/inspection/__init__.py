"""What PatchNCE sees, as numbers, pictures and a page."""
