#!/bin/bash
# One image over a Slurm array: 16 parts, then one job that does what is left and publishes.
#   bash slurm.sh /shared/big.ome.zarr --diameter 12um
set -euo pipefail
parts=16
image=$1
shift
array=$(sbatch --parsable --array=1-"$parts" --cpus-per-task=8 --mem=32G --time=08:00:00 \
  --job-name=anystar-part <<JOB
#!/bin/bash
exec anystar-batch segment $(printf '%q ' "$image" "$@") --part "\$SLURM_ARRAY_TASK_ID/$parts"
JOB
)
# afterany: a part that failed is made up for.
sbatch --dependency=afterany:"$array" --cpus-per-task=8 --mem=32G --time=08:00:00 \
  --job-name=anystar-finish <<JOB
#!/bin/bash
# 75: a part that died with its machine counts as at work for five minutes.
until anystar-batch segment $(printf '%q ' "$image" "$@"); do
  status=\$?
  [[ \$status == 75 ]] || exit "\$status"
  sleep 60
done
JOB
