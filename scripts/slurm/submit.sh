#!/usr/bin/env bash
# Submits experiments to SLURM: an array of trainings, an array of evaluations, each task of which starts when its
# training is done, and the page.
#
#   scripts/slurm/submit.sh [--dry-run] [--max_running N] [options of sbatch] -- [IDs] --out RUN_DIR [options]
#
#   scripts/slurm/submit.sh --partition gpu --gres gpu:1 --cpus-per-task 8 --time 24:00:00 \
#       -- CFG-00 CFG-01 XAttn-02 --scale paper --seeds 0 1 2 --data_dir data --out experiments/paper
#
# What follows `--` goes to scripts/run_experiments.py, which prints its plan first; what precedes it goes to every
# sbatch. --dry-run prints plan and commands and submits nothing; --max_running N lets N tasks of an array run at once.
# One task trains what several IDs share, and evaluates them. Run from the root of the repository. Submitted again,
# the same command does what is missing. VENV: the virtual environment (default: .venv).
set -euo pipefail

error() {
    echo "error: $*" >&2
    exit 2
}

# check_partitions NAME[,NAME]: end with a sentence unless the cluster has them all.
check_partitions() {
    local known wanted
    known=$(sinfo --noheader --format=%R | sort -u) || error "sinfo does not answer; is the cluster up?"
    for wanted in ${1//,/ }; do
        grep --quiet --line-regexp --fixed-strings -- "$wanted" <<<"$known" ||
            error "--partition $wanted: this cluster has no such partition; it has ${known//$'\n'/, }"
    done
}

# submit [OPTION ...] SCRIPT [ARGUMENT ...]: print the command; unless --dry-run, run it and leave its number in `job`.
submit() {
    local command=(sbatch --parsable "${options[@]}" "$@") line
    printf -v line ' %q' "${command[@]}"
    echo "${line:1}"
    if [[ -n $dry_run ]]; then
        job=JOB$((++submitted))
        return
    fi
    if ! job=$("${command[@]}"); then
        ((${#jobs[@]} == 0)) || scancel "${jobs[@]}"
        error "sbatch refused this job (see above); nothing is left in the queue"
    fi
    job=${job%%;*} # JOB;CLUSTER where there are several clusters
    jobs+=("$job")
}

options=() partition="" max_running="" dry_run="" out=""
while (($#)) && [[ $1 != -- ]]; do
    case $1 in
    --help | -h) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" && exit ;;
    --dry[-_]run | --dry[-_]run=[TtYy1]* | --dry[-_]run=[Oo][Nn]) dry_run=yes ;;
    --max_running)
        [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || error "--max_running ${2:-}: a number of tasks is needed"
        max_running=%$2 && shift
        ;;
    --partition | -p)
        [[ -n ${2:-} ]] || error "$1 is empty; name a partition or leave it out"
        partition=$2 options+=("$1" "$2") && shift
        ;;
    --partition=*) partition=${1#*=} && options+=("$1") ;;
    *) options+=("$1") ;;
    esac
    shift
done
(($#)) || error "write \`--\` between the options of sbatch and those of scripts/run_experiments.py (see --help)"
shift
experiments=()
while (($#)); do
    case $1 in
    --dry[-_]run | --dry[-_]run=[TtYy1]* | --dry[-_]run=[Oo][Nn]) dry_run=yes ;;
    *) experiments+=("$1") ;;
    esac
    case $1 in
    --out) out=${2:-} ;;
    --out=*) out=${1#*=} ;;
    esac
    shift
done
[[ -n $out ]] || error "--out is missing; name the folder of this run, which all jobs share"
[[ -f train.py ]] || error "$PWD: holds no train.py; run this from the root of the repository"
type sbatch sinfo >/dev/null 2>&1 || error "sbatch is not on PATH; run this on a login node of a SLURM cluster"
[[ -z $partition ]] || check_partitions "$partition"
python=${VENV:=.venv}/bin/python
[[ -x $python ]] || error "$VENV: no such virtual environment; run \`make install\` or set VENV"
export VENV

plan=$("$python" scripts/run_experiments.py "${experiments[@]}" --dry-run)
echo "$plan"
tasks=$(sed -n 's/^shares: \([0-9]*\).*/\1/p' <<<"$plan")
[[ -n $tasks ]] || error "the plan names no shares; nothing was submitted"
logs=$out/slurm
[[ -n $dry_run ]] || mkdir -p "$logs" # SLURM does not make the folder of its logs

jobs=() submitted=0 job=""
array=(--array="1-$tasks$max_running" --output="$logs/%x_%A_%a.log")
submit "${array[@]}" --job-name=train scripts/slurm/experiments.sbatch "${experiments[@]}" --stage train
trainings=$job
submit "${array[@]}" --job-name=evaluate --dependency="aftercorr:$trainings" --kill-on-invalid-dep=yes \
    scripts/slurm/experiments.sbatch "${experiments[@]}" --stage evaluate
submit --output="$logs/%x_%j.log" --job-name=report --dependency="afterany:$job" scripts/slurm/report.sbatch "$out"
if [[ -z $dry_run ]]; then
    echo "jobs ${jobs[*]}; logs in $logs; the page will be $out/page/index.html"
fi
