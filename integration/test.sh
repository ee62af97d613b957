#!/bin/sh
# Every test there is, in stages. The lab's machine works beside the engines, which mostly wait.
# Every stage is run; the status is 0 if all of them pass.
#
#     integration/test.sh [PYTEST]
set -u
cd "$(dirname "$0")/.."
pytest=${1:-.venv/bin/pytest}
log=build/lab-stage.log
failed=

stage() {
    name=$1
    shift
    echo "== $name"
    "$pytest" -q "$@" || failed="$failed $name"
}

IT_LAB=1 "$pytest" -q integration/lab >"$log" 2>&1 &
lab=$!
trap 'kill "$lab" 2>/dev/null; exit 1' INT TERM
sample=
for subject in create devices namespaces start state; do sample="$sample integration/test_$subject.py"; done
# shellcheck disable=SC2086
stage 'as an ordinary user' --rootless $sample

stage engines integration/engines
wait "$lab" || failed="$failed lab"
echo '== lab'
cat "$log"

stage 'the rest' tests integration --ignore=integration/engines --ignore=integration/lab
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
