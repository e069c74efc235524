"""Segment every star-convex object in huge OME-Zarr volumes, exactly, from the shell."""

__version__ = "0.1.0"
