#!/usr/bin/env bash
# tools/stage.sh NAME COMMAND...: runs the command and prints its name, result and duration.
set -euo pipefail
name="$1"
shift
printf '== %s\n' "$name"
began="$(date +%s)"
status=0
"$@" || status=$?
verdict="done"
[ "$status" -eq 0 ] || verdict="FAILED ($status)"
printf '== %s: %s after %s s\n' "$name" "$verdict" "$(($(date +%s) - began))"
exit "$status"
