#include "phalanx/base.h"

#include <sched.h>
#include <string.h>

void px_cpus_read(int pid, uint64_t mask[PX_MOST_CPUS / 64])
{
    cpu_set_t *set = CPU_ALLOC(PX_MOST_CPUS);
    size_t bytes = CPU_ALLOC_SIZE(PX_MOST_CPUS);
    memset(mask, 0, PX_MOST_CPUS / 8);
    if (set != NULL && sched_getaffinity(pid, bytes, set) == 0) {
        for (int cpu = 0; cpu < PX_MOST_CPUS; cpu++) {
            mask[cpu / 64] |= (uint64_t)(CPU_ISSET_S(cpu, bytes, set) != 0) << (cpu % 64);
        }
    } else {
        mask[0] = 1;
    }
    CPU_FREE(set);
}

int px_cpus_count(const uint64_t mask[PX_MOST_CPUS / 64])
{
    int count = 0;
    for (int word = 0; word < PX_MOST_CPUS / 64; word++) {
        count += __builtin_popcountll(mask[word]);
    }
    return count;
}
