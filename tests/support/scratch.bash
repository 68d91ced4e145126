# Sourced: $work, a directory of the script's own, and the environment of ranks that share few cores. The directory lies in
# memory where there is room: a disk takes longer to sync the small files of a run than the run takes. TMPDIR: another place.
scratch=${TMPDIR:-/tmp}
if [ -z "${TMPDIR:-}" ] && [ "$(df --output=avail -k /dev/shm 2> /dev/null | tail -n 1)" -gt 4194304 ] 2> /dev/null &&
    ! grep ' /dev/shm ' /proc/mounts | grep -q noexec; then
    scratch=/dev/shm
fi
work=$(mktemp -d "$scratch/phalanx-$(basename "$0" .sh)-XXXXXX") || exit 1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 \
       OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_WAIT_POLICY=passive
