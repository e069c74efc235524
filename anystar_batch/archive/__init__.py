"""OME-Zarr in and out: metadata, boxes, labels, locks and the ledger of finished work."""
