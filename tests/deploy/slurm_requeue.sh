#!/bin/bash
# Runs deploy/slurm.sbatch under a real SLURM of this one machine and requeues the job in the middle of stage 1. Not a
# part of the tests: it needs root and Debian's packages slurm-wlm and munge. About two minutes on two cores.
#
#   tests/deploy/slurm_requeue.sh [FOLDER]     prints the job's log; logs and the run are in FOLDER, by default a new one
set -eu
cd "$(dirname "$0")/../.."
folder=$(realpath "${1:-$(mktemp -d)}")
mkdir -p "$folder/state" "$folder/spool"
host=$(hostname -s)

cat > "$folder/slurm.conf" <<EOF
ClusterName=one
SlurmctldHost=$host
SlurmUser=root
AuthInfo=socket=$folder/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ReturnToService=2
# After SIGTERM processes have a minute to save. A requeued job may start at once.
KillWait=60
NodeName=$host CPUs=$(nproc)
PartitionName=all Nodes=$host Default=YES
EOF
export SLURM_CONF=$folder/slurm.conf

head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
slurmctld
slurmd
stop() {
  for daemon in slurmd slurmctld munged; do kill "$(cat "$folder/$daemon.pid")" 2> /dev/null || true; done
}
trap stop EXIT

wait_until() { # SECONDS COMMAND ...
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $deadline ] || { echo "slurm_requeue.sh: waited in vain for: $*" >&2; exit 1; }
    sleep 1
  done
}
state() { scontrol show job "$job" | grep -o 'JobState=[A-Z]*' | cut -d= -f2; }
is_in_state() { [ "$(state)" = "$1" ]; }
node_is_idle() { sinfo -h -o %t | grep -q idle; }

wait_until 60 node_is_idle
log=$folder/job.log
job=$(sbatch --parsable --nodes=1 --gpus-per-node=0 --ntasks-per-node=2 --cpus-per-task=1 --output="$log" \
  deploy/slurm.sbatch "$folder/run" --devices.labels 2 --representation.epochs 4 --adjust.epochs 2)
wait_until 600 grep -qs "representation epoch 1/" "$log"
scontrol requeue "$job"
echo "slurm_requeue.sh: requeued job $job" >> "$log"
wait_until 1200 is_in_state COMPLETED
cat "$log"
grep -q "representation: continues after step" "$log"
test -f "$folder/run/metrics.json"
echo "slurm_requeue.sh: job $job was requeued, continued and is $(state)"
