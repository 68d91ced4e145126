#!/usr/bin/env bash
# The house: MPI, HDF5, BLAS and oneDNN are called in one room each, and a room sees the contracts below it alone.
cd "$(dirname "$0")/../../src" || exit 1
failed=0
only() { # ROOM PATTERN
    local found
    found=$(grep -rnE "$2" --include=*.[ch] . | grep -v "^\./$1/")
    [ -z "$found" ] || { echo "outside of src/$1: $found"; failed=1; }
}
only dist '\bMPI_[A-Z]'
only store '\bH5[A-Z]+[a-z]'
only compute '\b(cblas|dnnl)_[a-z]'

sees() { # ROOM CONTRACT...
    local room=$1 allowed found; shift
    allowed=$(IFS='|'; echo "$*")
    [ -d "$room" ] || { echo "no room src/$room"; failed=1; }
    found=$(grep -rnE '#include "phalanx/' --include=*.[ch] "$room" | grep -vE "\"phalanx/($allowed)\.h\"")
    [ -z "$found" ] || { echo "src/$room sees more than $*: $found"; failed=1; }
}
sees base base
sees config config base
sees text text base
sees compute compute base
sees model model compute base
sees optim optim base
sees dist dist base
sees store store base
sees report report store base
sees rlhf rlhf rewards model compute optim text dist base
sees roles roles rlhf rewards model compute optim text dist store config base

[ $failed = 0 ] && echo "every room calls and sees what it may"
exit $failed
