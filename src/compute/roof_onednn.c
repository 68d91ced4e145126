/* oneDNN's matrix product in bf16, with the C interface of 2.x or 3.x, whichever headers the build found. */
#include "roof.h"
#ifndef PX_ONEDNN

double px_onednn_bf16_rate(int threads, int M, int out, int in)
{
    (void)threads, (void)M, (void)out, (void)in;
    return 0;
}

const char *px_compute_onednn(void) { return "none (built without its headers)"; }

#else
#include <dlfcn.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

#define EACH_FUNCTION(f) \
    f(engine_create) f(engine_destroy) f(stream_create) f(stream_destroy) f(stream_wait) f(memory_create) \
    f(memory_destroy) f(memory_get_data_handle) f(memory_desc_get_size) f(primitive_desc_query_md) f(primitive_create) \
    f(primitive_destroy) f(primitive_execute) f(primitive_desc_destroy) f(version) EACH_OF_VERSION(f)
#if DNNL_VERSION_MAJOR >= 3
#define EACH_OF_VERSION(f) f(memory_desc_create_with_tag) f(memory_desc_destroy) f(matmul_primitive_desc_create)
typedef dnnl_memory_desc_t layout;
#else
#define EACH_OF_VERSION(f) f(memory_desc_init_by_tag) f(matmul_desc_init) f(primitive_desc_create)
typedef const dnnl_memory_desc_t *layout;
#endif

#define STRING_OF(word) #word
#define STRING(macro) STRING_OF(macro)

static struct {
    bool found;
#define POINTER(name) __typeof__(dnnl_##name) *name;
    EACH_FUNCTION(POINTER)
} dnnl;

static bool open_library(void)
{
    char name[32];
    snprintf(name, sizeof name, "libdnnl.so.%d", DNNL_VERSION_MAJOR); /* the interface that was compiled against */
    void *library = dnnl.found ? NULL : dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) return dnnl.found;
    dnnl.found = true;
#define FIND(name) dnnl.found = dnnl.found && (*(void **)&dnnl.name = dlsym(library, "dnnl_" #name)) != NULL;
    EACH_FUNCTION(FIND)
    return dnnl.found;
}

const char *px_compute_onednn(void)
{
    static char name[64];
    if (!open_library()) return "none (built for libdnnl.so." STRING(DNNL_VERSION_MAJOR) ", which is not here)";
    const dnnl_version_t *version = dnnl.version();
    snprintf(name, sizeof name, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
    return name;
}

enum { A, W, C, OPERANDS };

/* w in whatever layout the library likes best: it is made once and used many times. */
static bool describe(dnnl_primitive_desc_t *product, dnnl_engine_t engine, int M, int out, int in)
{
    const dnnl_dims_t dims[OPERANDS] = {{M, in}, {in, out}, {M, out}};
    static const dnnl_data_type_t types[] = {dnnl_bf16, dnnl_bf16, dnnl_f32};
    static const dnnl_format_tag_t tags[] = {dnnl_ab, dnnl_format_tag_any, dnnl_ab};
    dnnl_memory_desc_t shapes[OPERANDS];
    bool fine = true;
#if DNNL_VERSION_MAJOR >= 3
    int made = 0;
    for (; made < OPERANDS && fine; made += fine)
        fine = dnnl.memory_desc_create_with_tag(&shapes[made], 2, dims[made], types[made], tags[made]) == dnnl_success;
    fine = fine && dnnl.matmul_primitive_desc_create(product, engine, shapes[A], shapes[W], NULL, shapes[C], NULL) ==
                       dnnl_success;
    while (made > 0) dnnl.memory_desc_destroy(shapes[--made]);
#else
    for (int i = 0; i < OPERANDS && fine; i++)
        fine = dnnl.memory_desc_init_by_tag(&shapes[i], 2, dims[i], types[i], tags[i]) == dnnl_success;
    dnnl_matmul_desc_t matmul;
    fine = fine && dnnl.matmul_desc_init(&matmul, &shapes[A], &shapes[W], NULL, &shapes[C]) == dnnl_success &&
           dnnl.primitive_desc_create(product, &matmul, NULL, engine, NULL) == dnnl_success;
#endif
    return fine;
}

static bool make_operand(dnnl_memory_t *memory, dnnl_primitive_desc_t product, dnnl_engine_t engine, int operand)
{
    static const dnnl_query_t queries[] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
    layout shape = dnnl.primitive_desc_query_md(product, queries[operand], 0);
    uint16_t *values;
    if (dnnl.memory_create(memory, shape, engine, DNNL_MEMORY_ALLOCATE) != dnnl_success ||
        dnnl.memory_get_data_handle(*memory, (void **)&values) != dnnl_success)
        return false;
    size_t count = dnnl.memory_desc_get_size(shape) / sizeof *values;
    for (size_t i = 0; i < count; i++) values[i] = (uint16_t)(0x3f00 + i % 127); /* 0.5 to 1 in bf16 */
    return true;
}

static double best_seconds(dnnl_primitive_t product, dnnl_stream_t stream, const dnnl_memory_t *memory)
{
    dnnl_exec_arg_t arguments[OPERANDS] = {
        {DNNL_ARG_SRC, memory[A]}, {DNNL_ARG_WEIGHTS, memory[W]}, {DNNL_ARG_DST, memory[C]}};
    double best = 0, began = px_now();
    for (int trial = 0; px_roof_more(trial, began); trial++) {
        double start = px_now();
        if (dnnl.primitive_execute(product, stream, OPERANDS, arguments) != dnnl_success ||
            dnnl.stream_wait(stream) != dnnl_success)
            return 0;
        double seconds = px_now() - start;
        best = trial == 0 || seconds < best ? seconds : best;
    }
    return best;
}

double px_onednn_bf16_rate(int threads, int M, int out, int in)
{
    if (!open_library()) return 0;
    int before = omp_get_max_threads();
    omp_set_num_threads(threads);
    dnnl_engine_t engine = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t product = NULL;
    dnnl_memory_t memory[OPERANDS] = {NULL};
    bool fine = dnnl.engine_create(&engine, dnnl_cpu, 0) == dnnl_success &&
                dnnl.stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success &&
                describe(&description, engine, M, out, in) &&
                dnnl.primitive_create(&product, description) == dnnl_success;
    for (int i = 0; i < OPERANDS && fine; i++) fine = make_operand(&memory[i], description, engine, i);
    double seconds = fine ? best_seconds(product, stream, memory) : 0;
    for (int i = 0; i < OPERANDS; i++) dnnl.memory_destroy(memory[i]); /* all take NULL */
    dnnl.primitive_destroy(product);
    dnnl.primitive_desc_destroy(description);
    dnnl.stream_destroy(stream);
    dnnl.engine_destroy(engine);
    omp_set_num_threads(before);
    return seconds > 0 ? 2.0 * M * out * in / seconds / 1e9 : 0;
}
#endif
