#!/bin/bash
# Tables 4 and 5 and Figure 4 at the paper's sizes on one GPU: deploy/experiments.sh DATA_FOLDER OUTPUT_FOLDER
# DATA_FOLDER/eurlex4k holds the corpus; pages and runs are in OUTPUT_FOLDER. The same command continues what was stopped.
set -eu
export LSFA_EXTRAS=${LSFA_EXTRAS:-cuda}
exec bin/experiments table4 table5 ablation --corpora eurlex4k --preset full --seeds "${SEEDS:-1}" \
  --config deploy/experiments.toml --data-dir "$1" --output "$2"
