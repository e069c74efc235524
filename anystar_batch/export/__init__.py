"""Stars to the formats of other programs: meshes, graphs, outlines, labels at another voxel size.

In the order in which data flows: `selection` (which stars, some at a time), then a file a format:
`meshes` (PLY, OBJ), `neuroglancer` (precomputed meshes), `graph` (GEFF, for trackers), `outlines`
(GeoParquet), `repaint` (labels again). Each writes to a path that is not there yet; who gives it
its name is `pipeline.export`.
"""
