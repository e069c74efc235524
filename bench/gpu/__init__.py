"""What a GPU does, in ten minutes: `python -m bench gpu OUT`.

Parts run one after another, each in a process of its own that is ended when its time is over, and
in order of worth: whatever was measured is on disk at once, should the machine be taken away.

`driver` gives out the time, starts the parts and keeps `OUT/gpu.json`; `page` writes `OUT/gpu.md`
of it; `sizes` says what is measured, in full and small. `child` is the process of a part:
`network` is the bare network by window, `command` the whole command and whether its bytes depend
on blocks, `shell` the command as a shell runs it, `training` a training step. `scenes` makes the
images, `device` asks backend and driver, and times what runs there.
"""
