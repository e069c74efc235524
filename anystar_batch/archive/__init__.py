"""OME-Zarr in and out: metadata, images, labels and tables among them, and finding images.

In the order in which data flows: `discovery` (which images there are), `age` (are they still being
written), `nodes` (groups and arrays as JSON files), `metadata` (documents to values), `names` (of
channels and multiscales), `units` (of length), `coordinate_systems` (of 0.6), `level_metadata` (do
those of the levels fit level 0?), `ngff` (those values), `arrays` (Zarr arrays), `images` (boxes of
voxels); then `label_place` and `label_image` (where a label lies, its levels), `labels` (made
hidden, exchanged, published), `label_copy` (the same in object stores), `label_list`,
`label_lookup` (the labels of an image, wherever they lie), `label_source` (a label as an image of
its own), `star_group` (the label as stars), `tables`. Bytes, locks and object stores are
`storage/`'s business.
"""
