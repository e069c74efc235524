"""Build the bundled model: synthetic samples, training, scores, export; not part of the wheel."""
