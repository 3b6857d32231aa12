#!/usr/bin/env bash
#SBATCH --job-name=sdd-runs-a-b
#SBATCH --dependency=singleton
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#SBATCH --output=/checkout/runs/slurm/%x-%j.log
#SBATCH --partition=long
set -u
cd /checkout || exit 1
# shellcheck disable=SC2016 # values are as they are
# What each process exited with: srun itself knows only the highest, and says 76 where one failed with 1
# and the others lost it.
codes=$(mktemp -d /checkout/runs/slurm/codes-XXXXXX) || exit 1
export codes
trap 'rm -rf "$codes"' EXIT

# Slurm may send SIGTERM to this script as well as to the processes: it is theirs to act on.
trap : TERM
# shellcheck disable=SC2016 # the process's own shell puts the values in
srun --kill-on-bad-exit=0 bash -c \
  'trap : TERM; "$@"; code=$?; echo "$code" > "$codes/$SLURM_PROCID"; exit "$code"' task \
  python -m sdd run experiments/concept_graph/sdsd.py '--workdir=runs/a b' &
child=$!
while :; do # a signal ends the wait early, not srun
  wait "$child"
  code=$?
  kill -0 "$child" 2> /dev/null || break
done
for file in "$codes"/*; do
  case $(cat "$file" 2> /dev/null) in
    '' | 0 | 76) ;;
    75) if [ "$code" = 76 ]; then code=75; fi ;;
    *) code=$(cat "$file") && break ;;
  esac
done

echo "slurm: exit code $code, restart ${SLURM_RESTART_COUNT:-0} of at most 3"
case $code in
  75 | 76)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
      scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this script in that time
    fi
    ;;
esac
exit "$code"
