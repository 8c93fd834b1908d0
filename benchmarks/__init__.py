"""What takes minutes or a GPU: measured by hand, and stored with where it was measured."""
