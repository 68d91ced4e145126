/* What the metadata of GGUF files says of the rotation, in the words of config.json. Keys and defaults: llama.cpp,
 * src/llama-model.cpp (load_hparams) and src/llama-context.cpp. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <jansson.h>
#include <math.h>
#include <cmocka.h>

#include "model/gguf.h"
#include "scratch.h"

enum { U32 = 4, F32 = 6, BOOL = 7, STRING = 8 };

typedef struct entry {
    const char *key; /* behind "ARCHITECTURE."; NULL: the list ends */
    int kind;
    double number;
    const char *text;
} entry;

static void put(px_buf *file, const void *bytes, size_t length) { assert_int_equal(px_buf_add(file, bytes, length), PX_OK); }

static void put_string(px_buf *file, const char *text)
{
    uint64_t length = strlen(text);
    put(file, &length, sizeof length);
    put(file, text, length);
}

static void put_entry(px_buf *file, const char *key, const entry *e)
{
    uint32_t kind = (uint32_t)e->kind, whole = (uint32_t)e->number;
    float real = (float)e->number;
    put_string(file, key);
    put(file, &kind, sizeof kind);
    if (e->kind == STRING) put_string(file, e->text);
    if (e->kind == U32) put(file, &whole, sizeof whole);
    if (e->kind == F32) put(file, &real, sizeof real);
    if (e->kind == BOOL) put(file, &(uint8_t){whole != 0}, 1);
}

/* A file of one small embedding with these entries beside what every model has. */
static px_status read_with(const char *architecture, const entry *more, json_t **config)
{
    static const entry sizes[] = {{"context_length", U32, 64, NULL}, {"embedding_length", U32, 8, NULL}, {"block_count", U32, 1, NULL},
                                  {"feed_forward_length", U32, 8, NULL}, {"attention.head_count", U32, 2, NULL}};
    char key[128];
    px_buf file = {0};
    uint64_t count = 1 + sizeof sizes / sizeof sizes[0], tensors = 1, shape[2] = {8, 4}, offset = 0;
    uint32_t version = 3, dims = 2, f32 = 0;
    for (const entry *e = more; e->key; e++) count++;
    put(&file, "GGUF", 4);
    put(&file, &version, sizeof version);
    put(&file, &tensors, sizeof tensors);
    put(&file, &count, sizeof count);
    put_entry(&file, "general.architecture", &(entry){"", STRING, 0, architecture});
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, sizes[i].key);
        put_entry(&file, key, &sizes[i]);
    }
    for (const entry *e = more; e->key; e++) {
        snprintf(key, sizeof key, "%s.%s", architecture, e->key);
        put_entry(&file, key, e);
    }
    put_string(&file, "token_embd.weight");
    put(&file, &dims, sizeof dims);
    put(&file, shape, sizeof shape);
    put(&file, &f32, sizeof f32);
    put(&file, &offset, sizeof offset);
    static const char zeros[32 + 4 * 32];
    put(&file, zeros, (32 - file.length % 32) % 32 + 4 * 32);
    scratch_write("model.gguf", file.data, file.length);
    px_buf_free(&file);
    return px_gguf_config(scratch_path("model.gguf"), config);
}

/* key of rope_scaling, 0: absent */
static double scaling_of(const char *architecture, const entry *more, const char *type, const char *key)
{
    json_t *config = NULL;
    assert_done(read_with(architecture, more, &config));
    json_t *scaling = json_object_get(config, "rope_scaling");
    double value = json_number_value(json_object_get(scaling, key));
    if (type) assert_string_equal(json_string_value(json_object_get(scaling, "rope_type")), type);
    else assert_null(scaling);
    json_decref(config);
    return value;
}

static void near(double got, double want) { assert_true(fabs(got - want) < 1e-6 * fabs(want)); }

static void a_factor_alone_is_linear(void **state)
{
    (void)state;
    const entry factor[] = {{"rope.scaling.factor", F32, 2.5, NULL}, {0}}, old[] = {{"rope.scale_linear", F32, 2.5, NULL}, {0}};
    const entry none[] = {{"rope.scaling.factor", F32, 2.5, NULL}, {"rope.scaling.type", STRING, 0, "none"}, {0}};
    const entry zero[] = {{"rope.scaling.factor", F32, 0, NULL}, {0}};
    static const char *const families[] = {"llama", "gptneox"};
    for (int i = 0; i < 2; i++) {
        near(scaling_of(families[i], factor, "linear", "factor"), 2.5);
        near(scaling_of(families[i], old, "linear", "factor"), 2.5);
        scaling_of(families[i], none, NULL, "factor");
        scaling_of(families[i], zero, NULL, "factor");
    }
}

#define YARN {"rope.scaling.type", STRING, 0, "yarn"}, {"rope.scaling.factor", F32, 4, NULL}

static void yarn_has_its_own_keys(void **state)
{
    (void)state;
    const entry keys[] = {YARN, {"rope.scaling.yarn_beta_fast", F32, 16, NULL}, {"rope.scaling.yarn_beta_slow", F32, 2, NULL},
                          {"rope.scaling.yarn_attn_factor", F32, 0.5, NULL}, {"rope.scaling.attn_factor", F32, 3, NULL},
                          {"rope.scaling.yarn_ext_factor", F32, 1, NULL}, {0}};
    near(scaling_of("llama", keys, "yarn", "beta_fast"), 16);
    near(scaling_of("llama", keys, "yarn", "beta_slow"), 2);
    near(scaling_of("llama", keys, "yarn", "attention_factor"), 1.5 * (1 + 0.1 * log(4)));
    const entry plain[] = {YARN, {0}};
    assert_true(scaling_of("llama", plain, "yarn", "attention_factor") == 0); /* config.json's own default */
}

static void what_is_not_computed_is_refused(void **state)
{
    (void)state;
    const entry ramp[] = {YARN, {"rope.scaling.yarn_ext_factor", F32, 0.5, NULL}, {0}};
    const entry logs[] = {YARN, {"rope.scaling.yarn_log_multiplier", F32, 0.1, NULL}, {0}};
    const entry causal[] = {{"attention.causal", BOOL, 0, NULL}, {0}};
    const struct {
        const entry *entries;
        const char *part;
    } cases[] = {{ramp, "yarn_ext_factor"}, {logs, "yarn_log_multiplier"}, {causal, "attention.causal is false"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *config = NULL;
        assert_refused(read_with("llama", cases[i].entries, &config), cases[i].part, cases[i].part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_factor_alone_is_linear),
        cmocka_unit_test(yarn_has_its_own_keys),
        cmocka_unit_test(what_is_not_computed_is_refused),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
