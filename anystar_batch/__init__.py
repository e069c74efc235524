"""Segment every star-convex object in huge OME-Zarr volumes, exactly, from the shell or Python."""

from anystar_batch.api import segment
from anystar_batch.errors import AnyStarBatchError

__version__ = "0.2.0"

__all__ = ["AnyStarBatchError", "__version__", "segment"]
