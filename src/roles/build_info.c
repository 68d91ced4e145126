/* What this program was built from and runs on. */
#include "run.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

const char *px_processor_name(void)
{
    static char name[128];
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file != NULL && name[0] == '\0' && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "model name : %127[^\n]", name) != 1) {
            name[0] = '\0';
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return name[0] != '\0' ? name : "unknown";
}

#if defined(__GNUC__) && !defined(__clang__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER __VERSION__ /* has the name in it */
#endif

int px_build_describe(px_attribute *attributes, int capacity, const char *commit)
{
    static struct utsname system;
    static char bf16[96];
    const char *why_not = px_compute_no_bf16();
    uname(&system);
    snprintf(bf16, sizeof bf16, "%s: %s", why_not ? "no" : "yes", why_not ? why_not : px_compute_bf16());
    const px_attribute all[] = {
        {.name = "version", .type = 's', .s = PX_VERSION},
        {.name = "commit", .type = 's', .s = commit},
        {.name = "compiler", .type = 's', .s = COMPILER},
        {.name = "mpi", .type = 's', .s = px_dist_version()},
        {.name = "ulfm", .type = 's', .s = px_dist_ulfm()},
        {.name = "blas", .type = 's', .s = px_compute_blas()},
        {.name = "hdf5", .type = 's', .s = px_store_version()},
        {.name = "cpu", .type = 's', .s = px_processor_name()},
        {.name = "isa", .type = 's', .s = px_compute_isa()},
        {.name = "bf16", .type = 's', .s = bf16},
        {.name = "batch_invariant", .type = 'b', .i = px_compute_row_invariant()},
        {.name = "host", .type = 's', .s = system.nodename},
        {.name = "kernel", .type = 's', .s = system.release},
    };
    int count = (int)(sizeof all / sizeof *all);
    PX_CHECK(count <= capacity);
    memcpy(attributes, all, sizeof all);
    return count;
}
