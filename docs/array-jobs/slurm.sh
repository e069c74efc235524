#!/bin/bash
# One image over Slurm arrays: 16 parts for the network, the same again for the rest, then one job that
# does what is left and publishes.
#   bash slurm.sh /shared/big.ome.zarr --diameter 12um
set -euo pipefail
parts=16
image=$1
shift

parts_after() {
  sbatch --parsable "$@" --array=1-"$parts" --cpus-per-task=8 --mem=32G --time=08:00:00 \
    --job-name=anystar-part <<JOB
#!/bin/bash
exec anystar-batch segment $command --part "\$SLURM_ARRAY_TASK_ID/$parts"
JOB
}

command=$(printf '%q ' "$image" "$@")
network=$(parts_after)
# afterany: a part that failed is made up for.
rest=$(parts_after --dependency=afterany:"$network")
sbatch --dependency=afterany:"$rest" --cpus-per-task=8 --mem=32G --time=08:00:00 \
  --job-name=anystar-finish <<JOB
#!/bin/bash
# 75: a part that died with its machine counts as at work for five minutes.
until anystar-batch segment $command; do
  status=\$?
  [[ \$status == 75 ]] || exit "\$status"
  sleep 60
done
JOB
