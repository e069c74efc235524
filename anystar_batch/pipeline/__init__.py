"""Orders of work: one image, an archive, a dry run, a score. No arithmetic on voxels.

One image, in the order in which data flows: `inputs` (which images a command names), `outputs`
(where results lie, locked) with `output_checks`, `prepare` (what is decided before work, with
`levels`, `region`: where objects are wanted, `probe`, which looks where `texture` says, and
`local_limits`), `candidate_sets` (what the network has said before, kept for other thresholds),
`segment` (the order of a run) with `label_stages` (what comes between network and table), `part`,
`part_ledgers`, `part_exchange` and `part_units` (a share of the work, for job arrays, and how it
comes together), `scarcity` (why it found next to nothing), `star_outputs` (stars in the label, or
added to one that is there), `publish` (results into their places, the page), `run_record` (what a
run says).

Around it: `dry_run` (what would be done, in which time), `sweep` and `sweep_outcome` (an archive),
`plate_table` (one table of a plate), `tune` and `threshold_table` (what each threshold would find),
`info` (what an image is), `evaluate` (a score), `seamtest` (a trace of tiles in the labels of any
program, whose `tile_grid` is told) by one `label_survey`, both from `label_volumes`, `export` (the
stars for other programs), `result` (a published one, found), `review` (what a person says of it)
and `training_set` (what is learnt from that), `selftest` (does it work here), `demo` (a first
look).
"""
