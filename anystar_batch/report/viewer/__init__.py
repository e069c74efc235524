"""An image and its labels in napari: `levels` (lazy arrays), `layers` (what is shown), `window`."""
