"""How tasks run: here, on Dask workers of this machine, or on a Dask cluster that runs already.

`machine` (memory and cores that we may take), `stop` (when to begin no further block), `attempts`
(what becomes of one task), `engines` (run many), `cluster` (workers of this machine),
`external_cluster` (somebody else's). Knows neither images nor plans.
"""
