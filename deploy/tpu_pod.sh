#!/bin/bash
# One model on all hosts of a TPU pod slice: deploy/tpu_pod.sh TPU_NAME ZONE RUN_FOLDER --data-dir FOLDER ...
# Each host has the repository in ~/lsfa_jax; data, cache (LSFA_DATA) and run folder are on a file system that all see.
# JAX asks the slice for its hosts. After a preemption, create the slice and start this again: the run continues.
set -eu
name=$1 zone=$2 run=$3
shift 3
printf -v train '%q ' bin/train --output "$run" "$@" --distributed.coordinator auto
exec gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command \
  "cd lsfa_jax && export LSFA_EXTRAS=tpu && if [ -e '$run/config.toml' ]; then $train --resume; else $train; fi"
