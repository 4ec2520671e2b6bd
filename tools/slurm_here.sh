#!/bin/bash
# A Slurm cluster of several nodes on this one machine, for tests: real controller, real daemons, no accounting.
#
#     tools/slurm_here.sh start [FOLDER [NODES]]    # as root, with Debian's slurmctld, slurmd, slurm-client and munge
#     export SLURM_CONF=FOLDER/slurm.conf           # then sbatch, srun, squeue, … talk to it
#     tools/slurm_here.sh stop [FOLDER]
#
# FOLDER (default /tmp/slurm-here) has its configuration, its state and its logs. The nodes are 127.0.0.1, 127.0.0.2, …,
# names that any machine can look up, and say that they have two processors and 64 GB, whatever there are. Partitions:
# cpu (the default one) and gpu, on the same nodes; gpu is for scripts that name such a partition, there is no GPU in it.
set -euo pipefail

action=${1:?start or stop}
folder=${2:-/tmp/slurm-here}
nodes=${3:-4}

stop() {
  local file
  for file in "$folder"/*.pid; do
    if [[ -e $file ]]; then kill "$(cat "$file")" 2> /dev/null || true; fi
  done
}

start() {
  local name
  name=$(hostname -s)
  stop
  rm -rf "$folder" && mkdir -p "$folder"/{state,log} && chmod 755 "$folder"

  # As munge's own package starts it, without systemd.
  if ! munge -n > /dev/null 2>&1; then
    install -d -o munge -g munge -m 0755 /run/munge
    [[ -e /etc/munge/munge.key ]] || { mungekey --create && chown munge: /etc/munge/munge.key; }
    setpriv --reuid munge --regid munge --clear-groups munged --force
  fi

  for ((i = 1; i <= nodes; i++)); do mkdir -p "$folder/state/127.0.0.$i"; done
  cat > "$folder/slurm.conf" << CONF
ClusterName=here
SlurmctldHost=$name(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# A job that goes back into the queue may start again when its old credential has ended: after 2 minutes by default.
AuthInfo=cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=10
MinJobAge=300
SchedulerParameters=sched_interval=2
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/state/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/%n.log
SlurmctldPort=16817
NodeName=127.0.0.[1-$nodes] NodeHostname=$name Port=[16821-$((16820 + nodes))] CPUs=2 RealMemory=64000 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL MaxTime=INFINITE State=UP
CONF
  export SLURM_CONF=$folder/slurm.conf
  slurmctld
  for ((i = 1; i <= nodes; i++)); do slurmd -N "127.0.0.$i"; done
  for ((i = 0; i < 60; i++)); do
    [[ $(sinfo -h -p cpu -t idle -o %D 2> /dev/null) == "$nodes" ]] && return
    sleep 0.5
  done
  sinfo >&2 || true
  tail -n 5 "$folder"/log/*.log >&2
  exit 1
}

"$action"
