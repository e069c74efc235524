"""Labels to numbers: sums that merge, finished tables, scores.

`sums` and `partials` (of one block, mergeable), `table` (finished rows), `table_files` (CSV and
Parquet); `merger` (of parts as they come), `extents` and `contacts` (boxes, and what touches, of
labels of any program); `overlaps` (voxels shared with a truth), `assignment`, `matching` (scores),
`agreement` (the same partition?); `review` (what a person says of instances, an error rate),
`partial_truth` (the same as labels).
"""
