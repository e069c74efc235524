"""Star-convex geometry: rays, candidates, painting, suppression; NumPy and numba only."""
