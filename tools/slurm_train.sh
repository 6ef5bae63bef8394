#!/bin/bash
# Train on a SLURM cluster, on any number of machines. Before the time is up, or when SLURM takes the machines away, the
# run saves, ends, is queued again, and goes on where it was: that run alone. To go on with a run of an earlier job, pass
# --resume. docs/multi_node.md says more.
#
#   sbatch --nodes 2 --gpus-per-node 8 tools/slurm_train.sh --config-file configs/... OUTPUT_DIR output/run
#
# Everything after the name of the script goes to tools/train_net.py. Run it from the project's folder.
#SBATCH --job-name=resnet_det
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
#SBATCH --signal=B:TERM@180

set -u
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
# Without GPUs: one process on each machine.
processes=${SLURM_GPUS_ON_NODE:-1}

# torchrun kills its processes 30 s after it has passed the signal on, unless it is told otherwise (torch 2.10 and later).
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-150}

interrupted=0
steps=
interrupt() {
  interrupted=1
  [ -z "$steps" ] || kill -TERM "$steps"
}
trap interrupt TERM

srun "${PYTHON:-.venv/bin/python}" -m torch.distributed.run --nnodes "$SLURM_NNODES" --nproc-per-node "$processes" \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:$port" tools/train_net.py "$@" &
steps=$!
wait "$steps"
status=$?
if [ "$interrupted" = 1 ]; then
  wait "$steps" # the first wait ended with the signal
  echo "slurm_train: interrupted; queued again"
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
