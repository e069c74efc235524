"""Labels to numbers: sums that merge, finished tables, scores.

`sums` and `partials` (of one block, mergeable), `table` (finished rows), `table_files` (CSV and
Parquet); `overlaps` (voxels shared with a truth), `assignment`, `matching` (scores);
`review` (what a person says of instances, an error rate), `partial_truth` (the same as labels).
"""
