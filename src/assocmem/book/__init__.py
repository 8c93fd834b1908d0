"""What only the chapters need: claims, exercise checks, the figure style."""

from assocmem.book.claims import claim

__all__ = ["claim"]
