"""Bytes at rest: files that are whole or absent, object stores, and who may write.

In the order in which a write meets them: `filesystems` (one door to fsspec), `remote_errors` (what
a store's error means), `remote` (objects), `files` (the same calls for files and objects),
`objects` (zarr's store of objects), `fence` (asked before every write), `lock` and `lease` (who
holds a file or an object). Nothing here knows OME-Zarr, the store adapter `objects` apart.
"""
