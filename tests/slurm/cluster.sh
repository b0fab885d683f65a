#!/usr/bin/env bash
# A SLURM cluster of one node, on this machine's loopback, for tests. Root on Debian or Ubuntu; no systemd needed.
#
#   tests/slurm/cluster.sh start DIR   installs slurm-wlm and munge when they are missing, starts munged, slurmctld and
#                                      slurmd with everything they write below DIR, waits until the node is idle
#   tests/slurm/cluster.sh stop DIR    ends the jobs and these three daemons
#
# `export SLURM_CONF=DIR/slurm.conf` makes sbatch, squeue and the others talk to it. Nothing in /etc is touched.
set -euo pipefail

error() {
    echo "error: $*" >&2
    exit 2
}

install_slurm() {
    type slurmctld slurmd munged >/dev/null 2>&1 && return
    type apt-get >/dev/null 2>&1 || error "slurmctld, slurmd and munged are missing; install SLURM and MUNGE"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; } >"$dir/install.log" 2>&1 ||
        error "slurm-wlm and munge could not be installed; see $dir/install.log"
}

# cred_expire: a requeued job waits that long before it starts again (120 s by default).
# CR_Core: jobs share the node by cores, not by memory; config_overrides: two of them, whatever the machine has.
write_configuration() {
    local memory
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    mkdir -p "$dir/state" "$dir/spool"
    cat >"$dir/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmdParameters=config_overrides
SlurmctldDebug=verbose
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=0
JobRequeue=1
KillWait=10
MinJobAge=3600
ReturnToService=2
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 RealMemory=$memory State=UNKNOWN
PartitionName=short Nodes=ALL Default=YES MaxTime=60 State=UP
PartitionName=long Nodes=ALL MaxTime=INFINITE State=UP
END
}

alive() {
    [[ -s $dir/$1.pid ]] && kill -0 "$(<"$dir/$1.pid")" 2>/dev/null
}

start() {
    mkdir -p "$dir"
    chmod 755 "$dir" # munged refuses a socket that nobody but root can reach
    install_slurm
    if [[ ! -s $dir/munge.key ]]; then
        (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    fi
    [[ -s $dir/slurm.conf ]] || write_configuration
    export SLURM_CONF=$dir/slurm.conf
    alive munged || munged --force --socket="$dir/munge.socket" --key-file="$dir/munge.key" \
        --pid-file="$dir/munged.pid" --seed-file="$dir/munge.seed" --log-file="$dir/munged.log"
    alive slurmctld || slurmctld >"$dir/slurmctld.out" 2>&1
    alive slurmd || slurmd >"$dir/slurmd.out" 2>&1
    for _ in $(seq 60); do
        case $(sinfo --noheader --partition=long --format=%t 2>/dev/null || true) in
        idle | mix | alloc) return ;;
        down*) scontrol update nodename="$(hostname -s)" state=resume ;;
        esac
        sleep 1
    done
    error "the node did not come up within 60 s; see $dir/slurmctld.log and $dir/slurmd.log"
}

stop() {
    export SLURM_CONF=$dir/slurm.conf
    if alive slurmctld; then
        scancel --full --signal=KILL --user="$(id -un)" 2>/dev/null || true
        scancel --user="$(id -un)" 2>/dev/null || true
        for _ in $(seq 30); do
            [[ -z $(squeue --noheader 2>/dev/null) ]] && break
            sleep 1
        done
    fi
    local name
    for name in slurmd slurmctld munged; do
        alive "$name" && kill "$(<"$dir/$name.pid")"
    done
    for name in slurmd slurmctld munged; do
        for _ in $(seq 20); do
            alive "$name" || break
            sleep 0.5
        done
    done
}

[[ $# -eq 2 && ($1 == start || $1 == stop) ]] || error "usage: $0 start|stop DIR"
[[ $(id -u) -eq 0 ]] || error "the daemons of the test cluster need root"
mkdir -p "$2"
dir=$(realpath "$2")
port=$((20000 + ($(cksum <<<"$dir" | cut -d' ' -f1) % 5000) * 2)) # clusters of two folders do not meet
"$1"
