#!/bin/bash
# Slurm does not run a job with --no-kill again that loses the node of its batch script.
#
# Guess: --no-kill lets a job outlive the loss of any node but the batch script's; with that one gone
#        Slurm requeues the job, as it does without the option.
# Truth: the node is taken out of the job like any other, and the job is not requeued: set down, it
#        fails (Slurm 22.05.8). Where the machine died (not shown here) the job kept its other nodes,
#        idle, for as long as it was watched.
#
# Needs Debian 12 as root: installs slurm-wlm (22.05.8) and munge, starts them in a temporary folder.
set -eu
export DEBIAN_FRONTEND=noninteractive
if ! command -v slurmctld munged > /dev/null; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends slurm-wlm munge > /dev/null
    rm /usr/sbin/policy-rc.d
fi
folder=$(mktemp -d)
chmod 755 "$folder"
cleanup() {
    for name in n1 n2 slurmctld munged; do
        if [ -f "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" || true; fi
    done
    sleep 1
    rm -rf "$folder"
}
trap cleanup EXIT

mkdir -p "$folder/state" "$folder/spool/n1" "$folder/spool/n2" "$folder/munge"
dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
chmod 400 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
export SLURM_CONF=$folder/slurm.conf
cat > "$SLURM_CONF" << CONF
ClusterName=finding
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=26811
SlurmUser=root
AuthInfo=socket=$folder/munge/socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
KillWait=2
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MailProg=/bin/true
NodeName=n[1-2] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[26812-26813] CPUs=4 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES State=UP
CONF
slurmctld
slurmd -N n1
slurmd -N n2
idle() { until [ "$(sinfo --noheader --Node --states=idle | wc -l)" = 2 ]; do sleep 0.5; done; }

# Prints what becomes of a job, with one more option, whose batch host is set down.
lose_batch_host() {
    idle
    job=$(sbatch --parsable --nodes=2 --requeue "$@" --output=/dev/null --wrap 'sleep 600')
    until squeue --noheader --states=RUNNING | grep -q "$job"; do sleep 0.5; done
    sleep 2
    scontrol update NodeName=n1 State=DOWN Reason=finding
    until scontrol show job "$job" | grep -Eq 'JobState=(PENDING|FAILED)'; do sleep 0.5; done
    scontrol show job "$job" | grep -Eo 'JobState=\w+|Restarts=[0-9]+' | paste -sd ' '
    scancel "$job"
    scontrol update NodeName=n1 State=RESUME 2> /dev/null || true
}
echo "slurm: $(slurmctld -V)"
without=$(lose_batch_host)
echo "without --no-kill: $without"
with=$(lose_batch_host --no-kill)
echo "with --no-kill: $with"
[ "$without" = "JobState=PENDING Restarts=1" ] || { echo "CHANGED: it is not requeued"; exit 1; }
[ "$with" = "JobState=FAILED Restarts=0" ] || { echo "CHANGED: the job does not just fail"; exit 1; }

# Seen on 2026-11-30:
# slurm: slurm-wlm 22.05.8
# without --no-kill: JobState=PENDING Restarts=1
# with --no-kill: JobState=FAILED Restarts=0
