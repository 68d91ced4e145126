/* The parameter table: counts of released models, names, adjacency, alignment, initial values. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tiny.h"

static px_model_config gpt2_small(void)
{
    px_model_config c = tiny_gpt2(PX_HEAD_LM, true);
    c.vocab_size = 50257;
    c.hidden_size = 768;
    c.layers = 12;
    c.heads = c.kv_heads = 12;
    c.head_dim = 64;
    c.intermediate_size = 3072;
    c.max_positions = 1024;
    return c;
}

static px_model_config llama(int V, int C, int L, int heads, int kv_heads, int D, int I, bool tied)
{
    px_model_config c = tiny_llama(PX_HEAD_LM, tied);
    c.vocab_size = V;
    c.hidden_size = C;
    c.layers = L;
    c.heads = heads;
    c.kv_heads = kv_heads;
    c.head_dim = c.rope.rotary_dim = D;
    c.intermediate_size = I;
    return c;
}

static int64_t count_of(px_model_config c)
{
    px_model model;
    assert_int_equal(px_model_plan(&model, &c), PX_OK);
    int64_t count = px_model_parameters(&model);
    px_model_free(&model);
    return count;
}

/* T32 of algorithms.md */
static void counts_of_released_models(void **state)
{
    (void)state;
    assert_int_equal(count_of(gpt2_small()), 124439808);
    assert_int_equal(count_of(llama(49152, 576, 30, 9, 3, 64, 1536, true)), 134515008);      /* SmolLM2-135M */
    assert_int_equal(count_of(llama(128256, 2048, 16, 32, 8, 64, 8192, true)), 1235814400);  /* Llama-3.2-1B */
    assert_int_equal(count_of(llama(32000, 2048, 22, 32, 4, 64, 5632, false)), 1100048384);  /* TinyLlama */
    px_model_config qwen = llama(151936, 896, 24, 14, 2, 64, 4864, true); /* Qwen2.5-0.5B: biases of q, k, v alone */
    qwen.attention_bias = true;
    assert_int_equal(count_of(qwen), 494032768);
}

/* As transformers counts them. */
static void counts_of_other_families(void **state)
{
    (void)state;
    static const struct {
        px_family family;
        int V, C, L, heads, kv_heads, D, I;
        bool tied;
        int64_t parameters;
    } models[] = {
        {PX_MISTRAL, 32000, 4096, 32, 32, 8, 128, 14336, false, 7241732096},    /* Mistral-7B-v0.1 */
        {PX_QWEN3, 151936, 1024, 28, 16, 8, 128, 3072, true, 596049920},        /* Qwen3-0.6B */
        {PX_GEMMA, 256000, 2048, 18, 8, 1, 256, 16384, true, 2506172416},       /* gemma-2b */
        {PX_GPT_NEOX, 50304, 128, 6, 4, 4, 32, 512, false, 14067712},           /* pythia-14m */
        {PX_GPT_NEOX, 50304, 512, 6, 8, 8, 64, 2048, false, 70426624},          /* pythia-70m */
        {PX_GPT_NEOX, 50304, 768, 12, 12, 12, 64, 3072, false, 162322944},      /* pythia-160m */
        {PX_OPT, 50272, 768, 12, 12, 12, 64, 3072, true, 125239296},            /* opt-125m */
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        px_model_config c;
        px_model_config_defaults(&c, models[i].family);
        c.head = PX_HEAD_LM;
        c.vocab_size = models[i].V;
        c.hidden_size = models[i].C;
        c.layers = models[i].L;
        c.heads = models[i].heads;
        c.kv_heads = models[i].kv_heads;
        c.head_dim = models[i].D;
        c.intermediate_size = models[i].I;
        c.tied = models[i].tied;
        px_model_config_complete(&c);
        assert_int_equal(px_model_config_check(&c), PX_OK);
        assert_int_equal(count_of(c), models[i].parameters);
    }
}

static void check_table(const px_model_config *config)
{
    px_model model;
    assert_int_equal(px_model_plan(&model, config), PX_OK);
    size_t end = 0;
    for (int i = 0; i < model.param_count; i++) {
        const px_param *p = &model.params[i];
        assert_true(p->offset >= end && p->offset - end < 16); /* in order, padded to 64 bytes at most */
        assert_int_equal(p->count, (size_t)p->shape[0] * (size_t)p->shape[1]);
        assert_ptr_equal(px_model_param(&model, p->name), p);
        end = p->offset + p->count;
    }
    assert_true(model.block >= end && model.block - end < 16);
    assert_int_equal(model.block % 16, 0);
    for (int l = 0; l < config->layers; l++) {
        const size_t *offsets = (const size_t *)&model.layers[l];
        for (size_t i = 0; i < sizeof(px_layer_view) / sizeof(size_t); i++) {
            assert_true(offsets[i] == SIZE_MAX || offsets[i] % 16 == 0);
        }
    }
    px_model_free(&model);
}

static void offsets_are_ordered_and_aligned(void **state)
{
    (void)state;
    for (int head = PX_HEAD_NONE; head <= PX_HEAD_SCALAR; head++) {
        for (int tied = 0; tied < 2; tied++) {
            px_model_config g = tiny_gpt2((px_head)head, tied), l = tiny_llama((px_head)head, tied);
            check_table(&g);
            check_table(&l);
            l.attention_bias = l.output_bias = l.mlp_bias = true;
            check_table(&l);
        }
        for (int family = 0; family < PX_FAMILIES; family++) {
            px_model_config c = tiny_family((px_family)family, (px_head)head);
            assert_int_equal(px_model_config_check(&c), PX_OK);
            check_table(&c);
        }
    }
}

static const px_param *param(const px_model *model, const char *name)
{
    const px_param *p = px_model_param(model, name);
    if (!p) fail_msg("no tensor %s", name);
    return p;
}

static void follows(const px_model *model, const char *a, const char *b)
{
    const px_param *first = param(model, a), *second = param(model, b);
    assert_int_equal(first->offset + first->count, second->offset);
}

static void names_and_adjacency(void **state)
{
    (void)state;
    px_model_config c = tiny_llama(PX_HEAD_LM, false);
    c.attention_bias = c.output_bias = c.mlp_bias = true;
    px_model model;
    assert_int_equal(px_model_plan(&model, &c), PX_OK);
    follows(&model, "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight");
    follows(&model, "model.layers.1.self_attn.k_proj.weight", "model.layers.1.self_attn.v_proj.weight");
    follows(&model, "model.layers.1.self_attn.q_proj.bias", "model.layers.1.self_attn.k_proj.bias");
    follows(&model, "model.layers.1.self_attn.k_proj.bias", "model.layers.1.self_attn.v_proj.bias");
    follows(&model, "model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.up_proj.weight");
    follows(&model, "model.layers.1.mlp.gate_proj.bias", "model.layers.1.mlp.up_proj.bias");
    assert_int_equal(param(&model, "model.layers.1.self_attn.q_proj.weight")->offset, model.layers[1].qkv_w);
    assert_int_equal(param(&model, "model.layers.0.self_attn.o_proj.bias")->offset, model.layers[0].out_b);
    assert_int_equal(param(&model, "model.layers.0.mlp.down_proj.bias")->offset, model.layers[0].down_b);
    assert_int_equal(param(&model, "lm_head.weight")->offset, model.lm_head);
    assert_true(model.position == SIZE_MAX && model.norm_b == SIZE_MAX && model.score == SIZE_MAX);
    assert_true(model.layers[0].norm1_b == SIZE_MAX);
    assert_int_equal(param(&model, "model.layers.1.input_layernorm.weight")->layer, 1);
    assert_false(param(&model, "model.layers.1.input_layernorm.weight")->decay);
    assert_true(param(&model, "model.layers.1.mlp.up_proj.weight")->decay);
    px_model_free(&model);

    c = tiny_gpt2(PX_HEAD_SCALAR, true);
    assert_int_equal(px_model_plan(&model, &c), PX_OK);
    assert_int_equal(model.param_count, 2 + 2 * 12 + 3);
    const px_param *qkv = param(&model, "transformer.h.0.attn.c_attn.weight");
    assert_true(qkv->transposed && qkv->shape[0] == 48 && qkv->shape[1] == 16);
    assert_int_equal(param(&model, "transformer.wpe.weight")->offset, model.position);
    const px_param *score = param(&model, "score.weight");
    assert_true(score->dims == 2 && score->shape[0] == 1 && score->shape[1] == 16 && !score->decay);
    assert_null(px_model_param(&model, "lm_head.weight"));
    assert_true(model.lm_head == SIZE_MAX);
    px_model_free(&model);
}

static double std_of(const px_model *model, const char *name)
{
    const px_param *p = param(model, name);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < p->count; i++) {
        double w = model->weights[p->offset + i];
        sum += w;
        squares += w * w;
    }
    double mean = sum / (double)p->count;
    return sqrt(squares / (double)p->count - mean * mean);
}

static void near(double a, double b, double relative)
{
    if (!(fabs(a - b) <= relative * fabs(b))) fail_msg("%g is not within %g of %g", a, relative, b);
}

static void initial_values(void **state)
{
    (void)state;
    px_model_config c = tiny_gpt2(PX_HEAD_SCALAR, true);
    c.hidden_size = 128;
    c.head_dim = 32;
    c.intermediate_size = 512;
    c.initializer_range = 0.02;
    px_model a, b;
    assert_int_equal(px_model_plan(&a, &c), PX_OK);
    assert_int_equal(px_model_alloc(&a), PX_OK);
    uint64_t version = a.version;
    px_model_init(&a, 7);
    assert_true(a.version > version);
    near(std_of(&a, "transformer.h.0.attn.c_attn.weight"), 0.02, 0.02);
    near(std_of(&a, "transformer.h.1.attn.c_proj.weight"), 0.02 / sqrt(4), 0.02); /* 2 layers: 0.02 / sqrt(2 L) */
    near(std_of(&a, "transformer.h.1.mlp.c_proj.weight"), 0.02 / sqrt(4), 0.02);
    near(std_of(&a, "score.weight"), 1 / sqrt(129), 0.25);
    assert_true(a.weights[a.norm_w] == 1 && a.weights[a.norm_b] == 0 && a.weights[a.layers[1].norm2_w] == 1);
    assert_true(a.weights[a.layers[1].qkv_b] == 0);

    c.head = PX_HEAD_LM; /* the body does not depend on the head; another seed gives other weights */
    assert_int_equal(px_model_plan(&b, &c), PX_OK);
    assert_int_equal(px_model_alloc(&b), PX_OK);
    px_model_init(&b, 7);
    assert_memory_equal(a.weights, b.weights, a.norm_w * sizeof(px_real));
    px_model_init(&b, 8);
    assert_memory_not_equal(a.weights, b.weights, 64 * sizeof(px_real));
    assert_int_equal(px_model_copy(&b, &a), b.param_count); /* a has the score head besides */
    assert_memory_equal(a.weights, b.weights, a.norm_w * sizeof(px_real));
    px_model_free(&a);
    px_model_free(&b);

    c = tiny_family(PX_GEMMA, PX_HEAD_LM); /* its norms multiply by 1 + w */
    assert_int_equal(px_model_plan(&a, &c), PX_OK);
    assert_int_equal(px_model_alloc(&a), PX_OK);
    px_model_init(&a, 7);
    assert_true(a.weights[a.norm_w] == 0 && a.weights[a.layers[0].norm1_w + 1] == 0 && a.weights[a.embed] != 0);
    px_model_free(&a);
}

static void arrays_view_the_block(void **state)
{
    (void)state;
    px_model_config c = tiny_llama(PX_HEAD_LM, true);
    px_model model;
    tiny_model(&model, &c, 1);
    px_array arrays[64];
    px_model_arrays(&model, model.weights, arrays);
    int64_t count = 0;
    for (int i = 0; i < model.param_count; i++) {
        assert_string_equal(arrays[i].name, model.params[i].name);
        assert_ptr_equal(arrays[i].data, model.weights + model.params[i].offset);
        assert_int_equal(arrays[i].dtype, PX_F32);
        count += px_array_count(&arrays[i]);
    }
    assert_int_equal(count, px_model_parameters(&model));
    px_model_free(&model);
}

/* 2 per multiply-add, counted by hand for the tiny Llama: q 24, kv 12 columns. */
static void flops_by_hand(void **state)
{
    (void)state;
    px_model_config c = tiny_llama(PX_HEAD_LM, true);
    double layer = 12 * (24 + 12 + 12) + 24 * 12 + 3 * 12 * 20, keys = (9 + 1) / 2.0;
    double expected = 2 * 100.0 * 2 * (layer + 2 * 24 * keys) + 2 * 30.0 * 12 * 41;
    assert_true(fabs(px_model_flops(&c, 100, 9, 30) - expected) < 1e-6 * expected);
    c.family = PX_MISTRAL;
    c.window = 4; /* 1 + 2 + 3 + 6 * 4 keys for 9 rows instead of 45 */
    expected -= 2 * 100.0 * 2 * 2 * 24 * (45 - 30) / 9.0;
    assert_true(fabs(px_model_flops(&c, 100, 9, 30) - expected) < 1e-6 * expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_of_released_models),         cmocka_unit_test(counts_of_other_families),
        cmocka_unit_test(offsets_are_ordered_and_aligned),   cmocka_unit_test(names_and_adjacency),
        cmocka_unit_test(initial_values),                    cmocka_unit_test(arrays_view_the_block),
        cmocka_unit_test(flops_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
