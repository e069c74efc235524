"""Bytes at rest: atomic writes, object stores, locks.

From the bottom up: `filesystems` (the one door to fsspec), `remote_errors` (what a store's error
means), `remote` (objects of stores and web servers), `zip_index` (what a zip file holds),
`zip_file` (its members), `files` (the same calls for files, objects and members), `names` (whether
results can get theirs), `atomic_write` (files that are whole or absent), `zarr_store` (the store
that zarr is given for an address), `zip_store` (the one for a zip file), `fence` (the signature in
a lock, looked at before every write), `file_lock` and `object_lock` (a lock as a file or as an
object), `lock` (the law of both: hold, heartbeat, take over from the dead). Nothing here knows
OME-Zarr, nor Zarr but for the two stores.
"""
