#include "cli.h"
#include "phalanx/roles.h"
#include "phalanx/store.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const px_usage usage = {
    .synopsis = "version [--json]",
    .what = "Version, commit, compiler, libraries, processor, back ends, and whether the forward pass is\n"
            "batch-invariant here: whether a token's log-probability has the same bits however it was computed.",
    .examples = "  phalanx version\n  phalanx version --json",
    .exits = "0 done, 64 usage",
};

/* SIMD sets of this processor that the kernels or BLAS can make use of. */
static const char *cpu_features(void)
{
    static char text[256];
#if defined(__x86_64__)
    __builtin_cpu_init();
    snprintf(text, sizeof text, "%s%s%s%s%s%s", __builtin_cpu_supports("sse4.2") ? "sse4.2" : "",
             __builtin_cpu_supports("avx") ? " avx" : "", __builtin_cpu_supports("avx2") ? " avx2" : "",
             __builtin_cpu_supports("fma") ? " fma" : "", __builtin_cpu_supports("avx512f") ? " avx512f" : "",
             __builtin_cpu_supports("avx512bf16") ? " avx512bf16" : "");
#else
    snprintf(text, sizeof text, "not listed on this architecture");
#endif
    return text;
}

px_status px_command_version(int argc, char **argv)
{
    bool json = false, helped;
    const px_option options[] = {{"json", PX_OPTION_FLAG, &json, NULL, "one object", 0, 0}};
    PX_TRY(px_options_parse(&usage, options, PX_COUNT(options), argc, argv, NULL, &helped));
    if (helped) {
        return PX_OK;
    }
    enum { CAPACITY = 64 };
    px_attribute list[CAPACITY];
    int count = px_build_describe(list, CAPACITY - 3, px_program_commit());
    list[count++] = (px_attribute){.name = "cpu_features", .type = 's', .s = cpu_features()};
    list[count++] = (px_attribute){.name = "cores", .type = 'i', .i = px_cores()};
    list[count++] = (px_attribute){.name = "back_ends", .type = 's',
                                   .s = strncmp(px_compute_blas(), "none", 4) == 0 ? "native" : "native blas"};
    json_t *object = json_object();
    for (int i = 0; i < count; i++) {
        const px_attribute *a = &list[i];
        const char *text = a->s != NULL ? a->s : "";
        json_object_set_new(object, a->name,
                            a->type == 's' ? json_string(text)
                            : a->type == 'b' ? json_boolean(a->i != 0)
                            : a->type == 'i' ? json_integer(a->i) : json_real(a->f));
        if (!json && a->type == 's') {
            printf("%-16s %s\n", a->name, text);
        } else if (!json && a->type == 'b') {
            printf("%-16s %s\n", a->name, a->i != 0 ? "yes" : "no");
        } else if (!json) {
            printf("%-16s %g\n", a->name, a->type == 'i' ? (double)a->i : a->f);
        }
    }
    if (json) {
        PX_TRY(px_print_json(object));
    } else {
        json_decref(object);
    }
    return px_output_done();
}
