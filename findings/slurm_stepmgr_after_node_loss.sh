#!/bin/bash
# Slurm 24.11: with enable_stepmgr a job that outlived its batch host cannot start a step on that node again.
#
# Guess: once the node is back, the job (--no-kill, requeued from another of its nodes) starts there like anywhere else.
# Truth: its batch script runs, but every srun in it fails ("Unable to confirm allocation for job"): slurmd, which was
#        never told that the first start is over, takes the job for one whose prolog has run, and starts no extern step,
#        which is the job's step manager. A further requeue tells it, and the start after that works. So ours requeues a
#        job at once whose launch fails in these words, and does not try again in it.
#
# Needs root and debootstrap: installs Debian 13's slurm-wlm into a temporary root and starts it there, in namespaces.
set -eu
root=$(mktemp -d)
chmod 755 "$root"
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=procps trixie "$root" > "$root.log" || { tail "$root.log"; exit 1; }
rm "$root.log"

cat > "$root/install" << 'END'
set -eu
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get install -y -qq --no-install-recommends slurm-wlm=24.11.5-4+deb13u1 munge=0.5.16-1.1~deb13u1 > /dev/null 2>&1
END

cat > "$root/job" << 'END'
#!/bin/bash
start=${SLURM_RESTART_COUNT:-0}
srun --quiet true 2> "/said.$start" && echo started > "/said.$start"
[ "$start" != 1 ] || scontrol requeue "$SLURM_JOB_ID"
sleep 600
END

cat > "$root/play" << 'END'
set -eu
mount -t proc proc /proc
mkdir -p /slurm/state /slurm/spool/n1 /slurm/spool/n2 /run/munge
chown munge /run/munge
[ -s /etc/munge/munge.key ] || mungekey
su -s /bin/sh munge -c munged 2> /dev/null
mkdir -p /etc/slurm
cat > /etc/slurm/slurm.conf << CONF
ClusterName=finding
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=26821
SlurmUser=root
AuthInfo=cred_expire=5
StateSaveLocation=/slurm/state
SlurmdSpoolDir=/slurm/spool/%n
SlurmctldPidFile=/slurm/slurmctld.pid
SlurmdPidFile=/slurm/%n.pid
SlurmctldLogFile=/slurm/slurmctld.log
SlurmdLogFile=/slurm/%n.log
SlurmctldParameters=enable_stepmgr
PrologFlags=contain
SlurmdTimeout=5
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=5,sched_interval=5
KillWait=2
MailProg=/bin/true
NodeName=n[1-2] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[26822-26823] CPUs=4 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES State=UP
CONF
echo CgroupPlugin=disabled > /etc/slurm/cgroup.conf
slurmctld 2> /dev/null
slurmd -N n1
slurmd -N n2
until [ "$(sinfo --noheader --Node --states=idle | wc -l)" = 2 ]; do sleep 0.5; done
chmod 755 /job
job=$(sbatch --parsable --nodes=2 --no-kill --requeue --output=/dev/null /job)
said() { until [ -s "/said.$1" ]; do sleep 0.5; done; head -n 1 "/said.$1"; }
echo "slurm: $(slurmctld -V)"
echo "first start: $(said 0)"
# The batch host dies: its slurmd, the job's step managers, and its script. All are of this namespace.
kill -9 "$(cat /slurm/n1.pid)" $(pgrep slurmstepd) $(pgrep -f slurm_script)
until scontrol show job "$job" | grep -q ' NodeList=n2'; do sleep 0.5; done
scontrol requeue "$job"
until squeue --noheader --states=PENDING | grep -q "$job"; do sleep 0.5; done
slurmd -N n1
echo "second start: $(said 1)"
echo "third start: $(said 2)"
END

chroot "$root" bash /install
unshare --mount --pid --fork --propagation private chroot "$root" bash /play | tee "$root/seen"
grep -q '^first start: started' "$root/seen" || { echo "CHANGED: no step starts at all"; exit 1; }
grep -q '^second start: srun: error: Unable to confirm allocation' "$root/seen" || { echo "CHANGED: it starts"; exit 1; }
grep -q '^third start: started' "$root/seen" || { echo "CHANGED: a requeue does not help"; exit 1; }

# Seen on 2026-11-30:
# slurm: slurm-wlm 24.11.5
# first start: started
# second start: srun: error: Unable to confirm allocation for job 1: Unspecified error
# third start: started
