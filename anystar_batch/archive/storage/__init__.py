"""Bytes at rest: files that are whole or absent, object stores, and who may write.

In the order in which a write meets them: `filesystems` (one door to fsspec), `remote_errors` (what
a store's error means), `remote` (objects), `files` (the same calls for files and objects),
`objects` (zarr's store of objects), `fence` (the signature in a lock, looked at before every
write), `file_lock` and `object_lock` (a lock as a file or as an object), `lock` (the law of both:
hold, heartbeat, take over from the dead). Nothing here knows OME-Zarr, the store adapter `objects`
apart.
"""
