"""What a person looks at after a run: one page, its pictures, and a judgement in words.

In the order in which data flows: `table_rows` (the table, read), `digest` (the table in fixed
memory), `seams` (did the blocks leave a trace), `nearness` (the same for the eye), `warnings` (what
may be wrong), `findings` (all of it, gathered), `views` and `profiles` (what to show of the image),
`pictures`, `charts`, `gallery`, `probe_figure`, `limits_figure`, `seam_figure` (drawn), `sections`,
`html`, `page` (put together). `review_sample` and `review_page`: what a person is asked, and where.
napari has a room of its own, `viewer/`. Nothing here writes a result.
"""
