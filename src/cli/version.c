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

/* Instruction sets of this processor that matrix kernels, ours or a library's, can make use of. */
static const char *cpu_features(void)
{
    static char text[256];
#if defined(__x86_64__)
    __builtin_cpu_init();
#define FEATURE(name) __builtin_cpu_supports(name) ? " " name : ""
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s%s%s%s%s%s%s%s", FEATURE("sse4.2"), FEATURE("avx"), FEATURE("avx2"),
             FEATURE("fma"), FEATURE("avx512f"), FEATURE("avx512bw"), FEATURE("avx512vl"), FEATURE("avx512dq"),
             FEATURE("avx512vnni"), FEATURE("avx512bf16"), FEATURE("avxvnni"), FEATURE("amx-tile"), FEATURE("amx-int8"),
             FEATURE("amx-bf16"));
#undef FEATURE
    return text[0] == ' ' ? text + 1 : text;
#else
    return "not listed on this architecture";
#endif
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
    int count = px_build_describe(list, CAPACITY - 4, px_program_commit());
    list[count++] = (px_attribute){.name = "cpu_features", .type = 's', .s = cpu_features()};
    list[count++] = (px_attribute){.name = "onednn", .type = 's', .s = px_compute_onednn()};
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
