#!/bin/bash
# An audit on N hosts of 8 GPUs, a process a host: sbatch --nodes=8 docs/scaling/slurm.sh
# The processes meet in the workdir, on a file system that all hosts share: no address, no port.
#SBATCH --job-name=diffence
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120

WORKDIR=${WORKDIR:-/shared/runs/cifar10}
# "--share", or "--distributed=auto" to train the two networks on the devices of all hosts.
TOGETHER=${TOGETHER:---share}

# One that dies does not end the others: what it was at is taken over.
srun --kill-on-bad-exit=0 diffence --config=cifar10 --workdir="$WORKDIR" \
  --config.shadow.num_models=128 "$TOGETHER"
code=$?
# 75: ended by SIGTERM before the work was done; the same command goes on.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
