# Sourced by every job script, in the root of the repository: its environment, and commands that survive preemption.
#
# VENV          virtual environment to activate (default: .venv)
# MAX_REQUEUES  how often a job may be started again before it gives up (default: 100)

preempted_exit=85 # what train.py and run_experiments.py return when a signal stopped them and they can go on
killed_by_usr1=138
preempted=""
trap 'preempted=yes' USR1 # until `run` passes it on

error() {
    echo "error: $*" >&2
    exit 2
}

[[ -f train.py ]] || error "$PWD: holds no train.py; submit from the root of the repository or with --chdir"
VENV=${VENV:-.venv}
[[ -f $VENV/bin/activate ]] || error "$VENV: no such virtual environment; run \`make install\` or set VENV"
source "$VENV/bin/activate"
export PYTHONUNBUFFERED=1 # the log tells how far a job is
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}} # not all cores of a node that others share
if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not take it over from sbatch since SLURM 22.05
fi

# share: K/N, the share of this task of an array.
share() {
    [[ ${SLURM_ARRAY_TASK_MIN:-} == 1 && $SLURM_ARRAY_TASK_MAX == "$SLURM_ARRAY_TASK_COUNT" ]] ||
        error "submit this script with --array=1-N, for N shares"
    echo "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
}

# run COMMAND [ARGUMENT ...]: start it with srun and end the job with its exit status.
# SIGUSR1 (sent 120 s before the time limit, and by whoever wants the node) is passed on; a command that then says it
# can go on is queued again. SIGTERM comes from scancel, or from a SLURM that queues the job again by itself.
run() {
    local step="" terminated="" status
    [[ -z $preempted ]] || requeue "$preempted_exit"
    trap 'signal_step USR1' USR1
    trap 'terminated=1; signal_step TERM' TERM
    srun --wait=300 "$@" & # a process that crashed takes the others with it, after 300 s
    step=$!
    while true; do # a trap interrupts wait
        status=0
        wait "$step" || status=$?
        kill -0 "$step" 2>/dev/null || break
    done
    trap '' USR1
    if [[ -z $terminated && ($status -eq $preempted_exit || $status -eq $killed_by_usr1) ]]; then
        requeue "$status"
    fi
    exit "$status"
}

signal_step() {
    [[ -z $step ]] || kill "-$1" "$step" 2>/dev/null || true
}

requeue() {
    # The number of an array may also be that of its last task, which alone is meant here.
    local job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    job=${job:-$SLURM_JOB_ID}
    local restarts=${SLURM_RESTART_COUNT:-0}
    if ((restarts >= ${MAX_REQUEUES:-100})); then
        echo "error: stopped after $restarts restarts (MAX_REQUEUES); submitted again, it goes on where it was" >&2
        exit "$1"
    fi
    echo "preempted; job $job is queued again and goes on where it was"
    scontrol requeue "$job" || {
        echo "error: job $job cannot be queued again; submitted again, it goes on where it was" >&2
        exit "$1"
    }
    exit 0
}
