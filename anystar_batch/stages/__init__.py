"""The stages of a run: what is left of each, and what a worker does for one block.

Data flow from the top of this list to its bottom: `levels` (which levels show what level 0 shows),
`level_zero` (what is wrong with that one), `plan` (what is decided before work, from `sampling`,
`cell_limits`, `region` and `second_look`), `region_survey` (which tiles and candidates a region
needs), `region_limits` (what is white in it), `preprocess` (what the network sees of a tile),
`predict` (image to candidates), `suppress` (candidates to survivors), `refine` (a second look at
each, read by `look_cells`), `surface` (where surfaces are put), `number` (survivors to instances),
`paint` (instances to labels of level 0), `pyramid` (coarse levels), `table` and `star_rows` (one
row an instance: its numbers, its star).

A stage is one file. In it the function on a `Run` (`suppress_run`) is the client's half: it asks
the ledger what is left and makes tasks of it; the one on a task (`suppress_block`) is the worker's
half: files in, files out. Stages never import each other, but for `paint`, which writes coarse
units of `pyramid` on the way.

Shared by all: `blocks` (what one task holds), `task` (what travels to a worker), `run` (a run under
way), `workdir` (every intermediate file), `label_sums` (those between `paint` and `table`),
`star_scores` (what stars say of themselves), `raw_tile` (what the network says of a tile),
`candidate_store` (where that stays with an image), `ledger` (what is done), `image_identity` (is
the image still the same).
"""
