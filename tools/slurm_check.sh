#!/usr/bin/env bash
# Runs the script of `mem2gen sweep plan --slurm` as an array job of a real SLURM of one node, which is started in a
# temporary folder and stopped at the end. Without Debian's slurm-wlm it prints one line and exits with status 0.
# Only root can start munged and slurmd. PROGRAM is the path of the program.
set -euo pipefail
# shellcheck source=tools/env.sh
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

program="$(realpath "${PROGRAM:-$CARGO_TARGET_DIR/release/mem2gen}")"
for tool in munged slurmctld slurmd sbatch squeue scontrol; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || {
    echo "slurm: $tool is missing (Debian package slurm-wlm); nothing was checked"
    exit 0
  }
done
export PATH="$PATH:/usr/sbin:/sbin"
[ "$(id -u)" = 0 ] || { echo "slurm: this user is not root, and only root can start slurmd; run as root" >&2; exit 1; }
[ -x "$program" ] || { echo "slurm: $program is missing; run \`make build\`" >&2; exit 1; }

work="$(mktemp -d /tmp/slurm.XXXXXX)"
pids=()
# Ends the processes of this script, and prints the logs after a failure.
finish() {
  status=$?
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  if [ "$status" != 0 ]; then tail -n 30 "$work"/*.log "$work"/slurm-*.out 2>/dev/null >&2 || true; fi
  rm -rf "$work"
}
trap finish EXIT
chmod 755 "$work"
mkdir -p "$work"/{state,spool,munge,project/data/plans}
chmod 700 "$work/munge"

# Own key and socket, independent of the system's daemons. munged wants all parent folders to be writable by their owner
# only, and /tmp is not: hence --force.
socket="$work/munge.socket"
dd if=/dev/urandom of="$work/munge/key" bs=128 count=1 status=none
chmod 400 "$work/munge/key"
munged --foreground --force --key-file "$work/munge/key" --socket "$socket" --log-file "$work/munged.log" \
  --pid-file "$work/munge/pid" --seed-file "$work/munge/seed" >"$work/munged-out.log" 2>&1 &
pids+=($!)

read -r first second < <(
  python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
for s in held: s.bind(("", 0))
print(*[s.getsockname()[1] for s in held])'
)
host="$(hostname -s)"
cat >"$work/slurm.conf" <<CONF
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=$first
SlurmdPort=$second
AuthType=auth/munge
AuthInfo=socket=$socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=10 State=UP
CONF
export SLURM_CONF="$work/slurm.conf"
slurmctld -D -i >"$work/slurmctld-out.log" 2>&1 &
pids+=($!)
slurmd -D -N "$host" >"$work/slurmd-out.log" 2>&1 &
pids+=($!)
for _ in $(seq 60); do
  if sinfo -h -t idle -o %D 2>/dev/null | grep -q 1; then break; fi
  sleep 0.5
done
sinfo -h -t idle -o %D | grep -q 1 || { echo "slurm: the node did not start within 30 s" >&2; exit 1; }

# Networks that train in a moment.
cat >"$work/project/data/plans/tiny.toml" <<'PLAN'
datasets = ["mnist"]
size = 7
sizes = [2, 9]
control = true
[[network]]
name = "mlp8"
arch = { kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 }
[training]
steps = 50
batch = 8
repeat = true
[sampling]
sampler = "ddim"
steps = 5
least = 30
[detection]
held_out = 100
PLAN
export MEM2GEN_DATA="${MEM2GEN_DATA:-$MEM2GEN_ROOT/data/cache}" MEM2GEN_ROOT="$work/project"
unset MEM2GEN_PROFILE
cd "$work/project"
"$program" sweep plan --plan tiny --slurm --array-limit 2 --out "$work/job.sh"
job="$(sbatch --parsable --output="$work/slurm-%a.out" "$work/job.sh")"
for _ in $(seq 240); do
  [ -n "$(squeue -h -j "$job" 2>/dev/null)" ] || break
  sleep 0.5
done
[ -z "$(squeue -h -j "$job")" ] || { squeue -j "$job" >&2; echo "slurm: job $job did not end within 120 s" >&2; exit 1; }
"$program" sweep status --plan tiny | grep -q "4 done, 0 running, 0 left" || {
  "$program" sweep status --plan tiny >&2
  echo "slurm: cells are missing" >&2
  exit 1
}
for task in 0 1 2 3; do
  grep -q "1 done now" "$work/slurm-$task.out" || { echo "slurm: task $task did not compute one cell" >&2; exit 1; }
done
"$program" sweep collect --plan tiny --out "$work/tables"
echo "slurm: $(slurmctld -V), one node: array job $job of 4 tasks, at most 2 at a time, computed 4 cells"
