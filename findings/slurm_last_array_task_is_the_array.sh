#!/bin/bash
# The last task of a Slurm array has the array's own id as its SLURM_JOB_ID.
#
# Guess: SLURM_JOB_ID names the job that a process is in, so `scontrol requeue $SLURM_JOB_ID` runs
#        that one again.
# Truth: in an array's last task it is the array's id, and every command takes that for all tasks:
#        the requeue ends and restarts each task that runs. ARRAY_TASK names one (Slurm 22.05.8).
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
    for name in slurmd slurmctld munged; do
        if [ -f "$folder/$name.pid" ]; then kill "$(cat "$folder/$name.pid")" || true; fi
    done
    sleep 1
    rm -rf "$folder"
}
trap cleanup EXIT

mkdir "$folder/state" "$folder/spool" "$folder/munge"
dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
chmod 400 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
export SLURM_CONF=$folder/slurm.conf
cat > "$SLURM_CONF" << CONF
ClusterName=finding
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=26801
SlurmUser=root
AuthInfo=socket=$folder/munge/socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MailProg=/bin/true
NodeName=n1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=26802 CPUs=4 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES State=UP
CONF
slurmctld
slurmd -N n1
until sinfo --noheader --format=%T | grep -q idle; do sleep 0.5; done

# shellcheck disable=SC2016  # for the job's own shell
job=$(sbatch --parsable --array=0-2 --ntasks=1 --requeue --output="$folder/%a.out" \
    --wrap 'echo $SLURM_JOB_ID; sleep 600')
until [ "$(cat "$folder"/?.out 2> /dev/null | wc -l)" = 3 ]; do sleep 0.5; done
last=$(cat "$folder/2.out")
restarts() {
    for task in 0 1 2; do scontrol show job "${job}_$task" | grep -o 'Restarts=[0-9]*'; done | paste -sd ' '
}

echo "slurm: $(slurmctld -V); array $job; SLURM_JOB_ID of its last task: $last"
scontrol requeue "${job}_2"
one=$(restarts)
echo "after requeue ${job}_2: $one"
until [ "$(squeue --noheader --states=RUNNING --array | wc -l)" = 3 ]; do sleep 0.5; done
scontrol requeue "$last"
all=$(restarts)
echo "after requeue $last: $all"
scancel "$job"
[ "$last" = "$job" ] || { echo "CHANGED: the last task has an id of its own"; exit 1; }
[ "$one" = "Restarts=0 Restarts=0 Restarts=1" ] || { echo "CHANGED: ${job}_2 is not one task"; exit 1; }
[ "$all" = "Restarts=1 Restarts=1 Restarts=2" ] || { echo "CHANGED: $last is not all tasks"; exit 1; }
