# Sourced after scratch.bash by scripts that start runs and wait for them: what they say of their steps, in $work, and the
# end of the run that they have started last, if they have not waited for it. TEST_TRACE=1 tells what is going on.
failed=0 step=start pid=
trace() { [ -z "${TEST_TRACE:-}" ] || echo "$SECONDS s: $step" >&2; }
fail() { echo "FAILED: $step: $*" >&2; failed=1; }
ranks_of() { ps -o pid=,comm= --ppid "$1" 2> /dev/null | awk '$2 ~ /^phalanx/ { print $1 }'; }
cleanup() {
    [ -n "$pid" ] && kill -9 $(ranks_of "$pid") "$pid" 2> /dev/null
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work" || exit 1
