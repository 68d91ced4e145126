/* Configurations: what is read, what is refused and by which name, and that what is written is read back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>

#include "model/config_write.h"
#include "phalanx/model.h"
#include "scratch.h"

#define GPT2 "\"model_type\":\"gpt2\",\"vocab_size\":100,\"n_embd\":12,\"n_layer\":2,\"n_head\":3,\"n_positions\":32"
#define LLAMA                                                                                                          \
    "\"model_type\":\"llama\",\"vocab_size\":100,\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2," \
    "\"num_attention_heads\":4,\"max_position_embeddings\":64"

#define NEOX                                                                                                           \
    "\"model_type\":\"gpt_neox\",\"vocab_size\":100,\"hidden_size\":16,\"intermediate_size\":24,"                         \
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"max_position_embeddings\":64"
#define OPT                                                                                                            \
    "\"model_type\":\"opt\",\"vocab_size\":100,\"hidden_size\":16,\"ffn_dim\":24,\"num_hidden_layers\":2,"              \
    "\"num_attention_heads\":4,\"max_position_embeddings\":64"

/* config.json = base with one key set to a value (JSON text). */
static px_status read_with(const char *base, const char *key, const char *value, px_model_config *config)
{
    char text[2048];
    snprintf(text, sizeof text, "{%s}", base);
    json_t *json = json_loads(text, 0, NULL), *changed = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    assert_non_null(changed);
    json_object_set_new(json, key, changed);
    assert_int_equal(json_dump_file(json, scratch_path("config.json"), 0), 0);
    json_decref(json);
    return px_model_config_read(scratch_dir, config);
}

static void test_defaults(void **state)
{
    (void)state;
    px_model_config c;
    assert_done(read_with(GPT2, "n_inner", "null", &c));
    assert_int_equal(c.family, PX_GPT2);
    assert_int_equal(c.head, PX_HEAD_LM);
    assert_true(c.tied && c.attention_bias && c.output_bias && c.mlp_bias);
    assert_int_equal(c.intermediate_size, 48);
    assert_int_equal(c.head_dim, 4);
    assert_int_equal(c.activation, PX_GELU_TANH);
    assert_int_equal(c.eos_count, 0); /* 50256 is no token of this vocabulary */
    assert_int_equal(c.rope.type, PX_ROPE_NONE);
    assert_true(c.norm_eps == 1e-5 && c.reward_std == 1 && c.reward_mean == 0);

    assert_done(read_with(LLAMA, "head_dim", "null", &c));
    assert_int_equal(c.family, PX_LLAMA);
    assert_false(c.tied || c.attention_bias || c.output_bias || c.mlp_bias);
    assert_int_equal(c.kv_heads, 4);
    assert_int_equal(c.head_dim, 4);
    assert_int_equal(c.bos_id, 1);
    assert_int_equal(c.eos_ids[0], 2);
    assert_int_equal(c.pad_id, -1);
    assert_true(c.norm_eps == 1e-6 && c.rope.theta == 10000 && c.rope.rotary_dim == 4);

    assert_done(read_with(LLAMA ",\"num_key_value_heads\":4", "model_type", "\"qwen2\"", &c));
    assert_true(c.attention_bias && !c.output_bias && !c.mlp_bias);
    assert_int_equal(c.bos_id, -1);
    assert_done(read_with(LLAMA ",\"num_key_value_heads\":null", "model_type", "\"mistral\"", &c));
    assert_int_equal(c.kv_heads, 4);
    assert_int_equal(c.window, 4096);
}

static void test_families(void **state)
{
    (void)state;
    px_model_config c;
    assert_done(read_with(LLAMA ",\"num_key_value_heads\":2,\"sliding_window\":null", "model_type", "\"mistral\"", &c));
    assert_int_equal(c.window, 0);
    assert_done(read_with(LLAMA ",\"num_key_value_heads\":2,\"sliding_window\":9", "model_type", "\"mistral\"", &c));
    assert_int_equal(c.window, 9);

    assert_done(read_with(LLAMA ",\"num_key_value_heads\":2,\"sliding_window\":9", "model_type", "\"qwen3\"", &c));
    assert_true(c.head_dim == 128 && c.window == 0 && !c.attention_bias && !c.tied); /* the window's switch is off */

    assert_done(read_with(LLAMA ",\"model_type\":\"gemma\",\"num_key_value_heads\":1", "hidden_act", "\"gelu\"", &c));
    assert_true(c.head_dim == 256 && c.tied && c.activation == PX_GELU_TANH);
    assert_true(c.bos_id == 2 && c.pad_id == 0 && c.eos_count == 1 && c.eos_ids[0] == 1);

    assert_done(read_with(NEOX, "rotary_emb_base", "500", &c));
    assert_true(c.parallel_residual && c.attention_bias && c.output_bias && c.mlp_bias && !c.tied);
    assert_true(c.head_dim == 8 && c.rope.rotary_dim == 2 && c.rope.theta == 500 && c.activation == PX_GELU_ERF);
    assert_done(read_with(NEOX ",\"rotary_pct\":0.5", "attention_bias", "false", &c));
    assert_true(c.rope.rotary_dim == 4 && !c.attention_bias && !c.output_bias && c.mlp_bias);
    assert_done(read_with(NEOX ",\"rotary_pct\":0.5", "rope_parameters",
                          "{\"rope_theta\":70.0,\"partial_rotary_factor\":1.0,\"rope_type\":\"default\"}", &c));
    assert_true(c.rope.rotary_dim == 8 && c.rope.theta == 70);

    assert_done(read_with(OPT, "word_embed_proj_dim", "16", &c));
    assert_true(c.activation == PX_RELU && c.tied && c.mlp_bias && c.rope.type == PX_ROPE_NONE && c.pad_id == 1);
    assert_done(read_with(OPT, "enable_bias", "false", &c));
    assert_false(c.attention_bias || c.output_bias || c.mlp_bias);
}

static void test_rope(void **state)
{
    (void)state;
    static const char llama3[] = "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                                 "\"original_max_position_embeddings\":16,\"rope_theta\":500000.0}";
    px_model_config c;
    assert_done(read_with(LLAMA ",\"rope_theta\":7.5", "rope_scaling", "{\"type\":\"linear\",\"factor\":2.5}", &c));
    assert_int_equal(c.rope.type, PX_ROPE_LINEAR);
    assert_true(c.rope.theta == 7.5 && c.rope.factor == 2.5);
    assert_done(read_with(LLAMA, "rope_parameters", llama3, &c));
    assert_int_equal(c.rope.type, PX_ROPE_LLAMA3);
    assert_true(c.rope.theta == 500000 && c.rope.factor == 8 && c.rope.low_freq == 1 && c.rope.high_freq == 4);
    assert_true(c.rope.original_positions == 16);
    assert_done(read_with(LLAMA, "rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":4}", &c));
    assert_true(c.rope.beta_fast == 32 && c.rope.beta_slow == 1 && c.rope.original_positions == 64);
    assert_true(fabs(c.rope.attention_factor - 1.138629436111989) < 1e-12); /* 0.1 ln 4 + 1 */
    assert_done(read_with(LLAMA, "rope_scaling",
                          "{\"rope_type\":\"yarn\",\"factor\":4,\"mscale\":1.0,\"mscale_all_dim\":1.0}", &c));
    assert_true(c.rope.attention_factor == 1);
    assert_done(read_with(LLAMA, "rope_scaling", "null", &c));
    assert_int_equal(c.rope.type, PX_ROPE_DEFAULT);
}

static void test_stop_ids(void **state)
{
    (void)state;
    px_model_config c;
    scratch_text("generation_config.json", "{\"eos_token_id\":[7,9,7,100000]}");
    assert_done(read_with(LLAMA, "eos_token_id", "[5,7]", &c));
    assert_int_equal(c.eos_count, 3);
    assert_int_equal(c.eos_ids[0], 5);
    assert_int_equal(c.eos_ids[1], 7);
    assert_int_equal(c.eos_ids[2], 9);
    assert_done(read_with(LLAMA, "eos_token_id", "null", &c));
    assert_int_equal(c.eos_count, 2);
    scratch_text("generation_config.json", "{\"eos_token_id\":\"</s>\"}");
    assert_refused(read_with(LLAMA, "eos_token_id", "3", &c), "text as id",
                   "generation_config.json: key \"eos_token_id\"");
    scratch_text("generation_config.json", "[]");
    assert_refused(read_with(LLAMA, "eos_token_id", "3", &c), "list", "not a JSON object");
    assert_int_equal(px_tree_remove(scratch_path("generation_config.json")), PX_OK);
    assert_refused(read_with(LLAMA, "eos_token_id", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", &c), "17",
                   "at most 16");
}

static void test_heads(void **state)
{
    (void)state;
    px_model_config c;
    assert_done(read_with(GPT2, "architectures", "[\"GPT2Model\"]", &c));
    assert_int_equal(c.head, PX_HEAD_NONE);
    assert_done(read_with(LLAMA ",\"id2label\":{\"0\":\"A\"},\"reward_mean\":-1.5,\"reward_std\":2", "architectures",
                          "[\"LlamaForSequenceClassification\"]", &c));
    assert_int_equal(c.head, PX_HEAD_SCALAR);
    assert_true(c.reward_mean == -1.5 && c.reward_std == 2);
}

static void test_refusals(void **state)
{
    (void)state;
    static const char classifier[] = LLAMA ",\"architectures\":[\"LlamaForSequenceClassification\"]";
    static const struct {
        const char *base, *key, *value, *part;
    } cases[] = {
        {GPT2, "model_type", "\"bloom\"",
         "config.json: key \"model_type\": \"bloom\" is not a known family of models; valid is \"gpt2\", \"llama\""},
        {GPT2, "model_type", "null", "model_type"},
        {GPT2, "model_type", "7", "model_type"},
        {GPT2, "vocab_size", "null", "vocab_size"},
        {GPT2, "vocab_size", "0", "an integer from 1 to 16777216"},
        {GPT2, "vocab_size", "-5", "vocab_size"},
        {GPT2, "vocab_size", "1e3", "vocab_size"},
        {GPT2, "vocab_size", "99999999999999999", "vocab_size"},
        {GPT2, "n_embd", "\"12\"", "\"n_embd\" is \"12\"; valid is an integer"},
        {GPT2, "n_embd", "13", "n_head"},
        {GPT2, "n_layer", "1000000", "n_layer"},
        {GPT2, "n_inner", "0", "n_inner"},
        {GPT2, "layer_norm_epsilon", "0", "layer_norm_epsilon"},
        {GPT2, "layer_norm_epsilon", "true", "layer_norm_epsilon"},
        {GPT2, "activation_function", "\"quick_gelu\"", "activation_function"},
        {GPT2, "scale_attn_weights", "false", "scale_attn_weights"},
        {GPT2, "scale_attn_by_inverse_layer_idx", "true", "scale_attn_by_inverse_layer_idx"},
        {GPT2, "reorder_and_upcast_attn", "true", "reorder_and_upcast_attn"},
        {GPT2, "add_cross_attention", "true", "add_cross_attention"},
        {GPT2, "tie_word_embeddings", "1", "tie_word_embeddings"},
        {GPT2, "torch_dtype", "\"float64\"", "torch_dtype"},
        {GPT2, "eos_token_id", "-7", "eos_token_id"},
        {GPT2, "bos_token_id", "1.5", "bos_token_id"},
        {GPT2, "quantization_config", "{\"bits\":4}", "quantization_config"},
        {GPT2, "architectures", "[\"GPT2DoubleHeadsModel\"]", "architectures"},
        {GPT2, "architectures", "[\"LlamaForTokenClassification\"]", "architectures"},
        {GPT2, "architectures", "\"GPT2Model\"", "architectures"},
        {GPT2, "reward_std", "0", "reward_std"},
        {LLAMA, "num_attention_heads", "3", "num_attention_heads"},
        {LLAMA, "num_key_value_heads", "3", "num_key_value_heads"},
        {LLAMA, "num_key_value_heads", "8", "num_key_value_heads"},
        {LLAMA, "head_dim", "5", "even head_dim"},
        {LLAMA, "hidden_act", "\"mish\"", "hidden_act"},
        {LLAMA, "rope_theta", "0.5", "rope_theta"},
        {LLAMA, "rope_theta", "\"big\"", "rope_theta"},
        {LLAMA, "rope_scaling", "[]", "rope_scaling"},
        {LLAMA, "rope_scaling", "{\"type\":\"dynamic\",\"factor\":2}", "dynamic and longrope change the rotation"},
        {LLAMA, "rope_scaling", "{\"rope_type\":\"longrope\",\"factor\":2}",
         "\"rope_scaling.rope_type\" is \"longrope\""},
        {LLAMA, "rope_scaling", "{\"rope_type\":\"linear\"}", "\"rope_scaling.factor\" is missing"},
        {LLAMA, "rope_parameters", "{\"rope_type\":\"linear\",\"factor\":0.5}", "\"rope_parameters.factor\" is 0.5"},
        {LLAMA, "rope_parameters",
         "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":1}", "0 < low < high"},
        {LLAMA, "rope_parameters", "{\"rope_type\":\"default\",\"partial_rotary_factor\":0.5}",
         "partial_rotary_factor"},
        {LLAMA, "rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":2,\"truncate\":false}", "truncate"},
        {LLAMA, "rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":2,\"truncate\":null}", "truncate"},
        {LLAMA, "head_dim", "2048", "\"head_dim\" is 2048; valid is"},
        {LLAMA, "sliding_window", "16", "sliding_window"},
        {LLAMA, "layer_types", "[\"full_attention\",\"sliding_attention\"]", "layer_types"},
        {LLAMA ",\"model_type\":\"mistral\",\"sliding_window\":8", "rope_theta", "10", "duplicate"},
        {LLAMA ",\"num_key_value_heads\":4,\"use_sliding_window\":true", "model_type", "\"qwen2\"", "use_sliding_window"},
        {LLAMA ",\"model_type\":\"mistral\",\"num_key_value_heads\":4", "sliding_window", "0", "sliding_window"},
        {LLAMA ",\"model_type\":\"mistral\",\"num_key_value_heads\":4", "layer_types", "[\"sliding_attention\"]",
         "layer_types"},
        {LLAMA ",\"model_type\":\"gemma\"", "use_bidirectional_attention", "true", "use_bidirectional_attention"},
        {LLAMA, "is_causal", "false", "\"is_causal\" is false; valid is true"},
        {NEOX, "is_causal", "null", "is_causal"},
        {NEOX, "head_dim", "16", "\"head_dim\" is 16; valid is null, or the width divided by"},
        {NEOX, "rotary_pct", "0.2", "number from 2 to head_dim"},
        {NEOX, "num_attention_heads", "3", "\"num_attention_heads\" is 3; valid is a divisor"},
        {NEOX, "rope_scaling", "{\"type\":\"dynamic\",\"factor\":2}", "dynamic and longrope change"},
        {OPT, "word_embed_proj_dim", "8", "\"word_embed_proj_dim\" is 8; valid is hidden_size (projections"},
        {OPT, "do_layer_norm_before", "false", "do_layer_norm_before\" is false; valid is true (norms after the residual"},
        {OPT, "_remove_final_layer_norm", "true", "_remove_final_layer_norm"},
        {OPT, "layer_norm_elementwise_affine", "false", "layer_norm_elementwise_affine"},
        {classifier, "num_labels", "3", "num_labels"},
        {classifier, "id2label", "{\"0\":\"A\",\"1\":\"B\"}", "id2label"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        px_model_config c;
        if (strcmp(cases[i].part, "duplicate") == 0) { /* the same key twice, as text */
            char text[1024];
            snprintf(text, sizeof text, "{%s}", cases[i].base);
            scratch_text("config.json", text);
            assert_refused(px_model_config_read(scratch_dir, &c), "duplicate key", "duplicate");
            continue;
        }
        px_status status = read_with(cases[i].base, cases[i].key, cases[i].value, &c);
        char what[200];
        snprintf(what, sizeof what, "%s = %s", cases[i].key, cases[i].value);
        if (status == PX_DATA) assert_non_null(strstr(px_error_text(), "config.json"));
        assert_refused(status, what, cases[i].part);
    }
}

static void test_bad_files(void **state)
{
    (void)state;
    px_model_config c;
    px_tree_remove(scratch_path("config.json"));
    assert_refused(px_model_config_read(scratch_dir, &c), "absent", "no config.json");
    assert_refused(px_model_config_read(scratch_path("nowhere"), &c), "nowhere", "nowhere: no such directory; valid is");
    scratch_text("config.json", "");
    assert_refused(px_model_config_read(scratch_path("config.json"), &c), "a file", "config.json: is a file; valid is");
    assert_refused(px_model_config_read(scratch_dir, &c), "empty", "config.json");
    scratch_text("config.json", "[1]");
    assert_refused(px_model_config_read(scratch_dir, &c), "list", "not a JSON object");
    scratch_text("config.json", "{\"model_type\": \"gpt2\"");
    assert_refused(px_model_config_read(scratch_dir, &c), "cut", "not valid JSON");
    char *deep = malloc(100001);
    memset(deep, '[', 100000);
    deep[100000] = 0;
    scratch_text("config.json", deep);
    free(deep);
    assert_refused(px_model_config_read(scratch_dir, &c), "deep", "depth");
}

static void assert_same(const px_model_config *a, const px_model_config *b)
{
    assert_int_equal(a->family, b->family);
    assert_int_equal(a->head, b->head);
    assert_int_equal(a->tied, b->tied);
    const int *x[] = {&a->vocab_size, &a->hidden_size,       &a->layers,        &a->heads,  &a->kv_heads,
                      &a->head_dim,   &a->intermediate_size, &a->max_positions, &a->bos_id, &a->eos_count};
    const int *y[] = {&b->vocab_size, &b->hidden_size,       &b->layers,        &b->heads,  &b->kv_heads,
                      &b->head_dim,   &b->intermediate_size, &b->max_positions, &b->bos_id, &b->eos_count};
    for (int i = 0; i < 10; i++) assert_int_equal(*x[i], *y[i]);
    for (int i = 0; i < a->eos_count; i++) assert_int_equal(a->eos_ids[i], b->eos_ids[i]);
    assert_int_equal(a->attention_bias, b->attention_bias);
    assert_int_equal(a->output_bias, b->output_bias);
    assert_int_equal(a->mlp_bias, b->mlp_bias);
    assert_int_equal(a->activation, b->activation);
    assert_int_equal(a->window, b->window);
    assert_int_equal(a->parallel_residual, b->parallel_residual);
    assert_true(a->norm_eps == b->norm_eps && a->initializer_range == b->initializer_range);
    assert_true(a->reward_mean == b->reward_mean && a->reward_std == b->reward_std);
    assert_int_equal(a->rope.type, b->rope.type);
    if (a->rope.type == PX_ROPE_NONE) return;
    assert_true(a->rope.theta == b->rope.theta && a->rope.factor == b->rope.factor);
    assert_true(a->rope.attention_factor == b->rope.attention_factor && a->rope.low_freq == b->rope.low_freq);
    assert_true(a->rope.original_positions == b->rope.original_positions && a->rope.beta_fast == b->rope.beta_fast);
    assert_int_equal(a->rope.rotary_dim, b->rope.rotary_dim);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char llama3[] = "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                                 "\"original_max_position_embeddings\":16}";
    static const char yarn[] =
        "{\"rope_type\":\"yarn\",\"factor\":4,\"beta_fast\":16,\"original_max_position_embeddings\":16}";
    static const char *const cases[][3] = {
        {GPT2, "layer_norm_epsilon", "1.1e-5"},
        {GPT2 ",\"tie_word_embeddings\":false", "activation_function", "\"relu\""},
        {GPT2 ",\"reward_mean\":0.1,\"reward_std\":3.3", "architectures", "[\"GPT2ForSequenceClassification\"]"},
        {LLAMA ",\"attention_bias\":true,\"eos_token_id\":[5,6]", "rope_scaling", llama3},
        {LLAMA ",\"num_key_value_heads\":2,\"head_dim\":6", "rope_scaling", yarn},
        {LLAMA ",\"mlp_bias\":true", "rope_scaling", "{\"rope_type\":\"linear\",\"factor\":3}"},
        {LLAMA ",\"num_key_value_heads\":2,\"rope_theta\":1234.5", "model_type", "\"qwen2\""},
        {LLAMA ",\"num_key_value_heads\":2", "model_type", "\"mistral\""},
        {LLAMA ",\"num_key_value_heads\":2,\"model_type\":\"mistral\"", "sliding_window", "null"},
        {LLAMA ",\"num_key_value_heads\":2,\"sliding_window\":5", "model_type", "\"mistral\""},
        {LLAMA ",\"num_key_value_heads\":2,\"attention_bias\":true", "model_type", "\"qwen3\""},
        {LLAMA ",\"num_key_value_heads\":2", "model_type", "\"gemma\""},
        {NEOX, "rotary_pct", "1"},
        {NEOX ",\"use_parallel_residual\":false", "rope_scaling", yarn},
        {NEOX ",\"hidden_size\":98", "rotary_pct", "0.041"}, /* 2 of 49 */
        {OPT ",\"init_std\":0.006", "enable_bias", "false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        px_model_config a, b;
        assert_done(read_with(cases[i][0], cases[i][1], cases[i][2], &a));
        assert_done(px_model_config_write(&a, scratch_dir, PX_BF16));
        assert_done(px_model_config_read(scratch_dir, &b));
        assert_same(&a, &b);
        assert_int_equal(px_tree_remove(scratch_path("generation_config.json")), PX_OK);
    }
}

/* transformers scores at the right-most token that is not the pad id: a stop id must not be that. */
static void test_scoring_pad(void **state)
{
    (void)state;
    static const struct {
        const char *ids;
        int head, pad; /* the pad id that is written for this head */
    } cases[] = {
        {"\"bos_token_id\":1,\"eos_token_id\":2,\"pad_token_id\":0", PX_HEAD_SCALAR, 0},
        {"\"bos_token_id\":1,\"eos_token_id\":2,\"pad_token_id\":2", PX_HEAD_SCALAR, 1},
        {"\"bos_token_id\":1,\"eos_token_id\":[2,99],\"pad_token_id\":99", PX_HEAD_SCALAR, 1},
        {"\"bos_token_id\":99,\"eos_token_id\":99,\"pad_token_id\":99", PX_HEAD_SCALAR, 98},
        {"\"bos_token_id\":1,\"eos_token_id\":2", PX_HEAD_SCALAR, 1},
        {"\"bos_token_id\":1,\"eos_token_id\":2,\"pad_token_id\":2", PX_HEAD_LM, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        px_model_config c;
        char base[1024];
        snprintf(base, sizeof base, LLAMA ",%s", cases[i].ids);
        assert_done(read_with(base, "head_dim", "4", &c));
        c.head = (px_head)cases[i].head;
        assert_done(px_model_config_write(&c, scratch_dir, PX_F32));
        assert_done(px_model_config_read(scratch_dir, &c));
        assert_int_equal(c.pad_id, cases[i].pad);
        assert_int_equal(px_tree_remove(scratch_path("generation_config.json")), PX_OK);
    }
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t parameters; /* as transformers counts them */
    } shapes[] = {
        {"gpt2-124m", 124439808}, {"nano10m", 10770816}, {"smollm2-135m", 134515008}, {"stories15m", 15191712}};
    px_model_config c;
    for (int i = 0; i < 4; i++) {
        px_model model;
        assert_done(px_model_config_shape(shapes[i].name, &c));
        assert_done(px_model_plan(&model, &c));
        assert_int_equal(px_model_parameters(&model), shapes[i].parameters);
        px_model_free(&model);
    }
    assert_int_equal(px_model_config_shape("gpt3", &c), PX_USAGE);
    assert_non_null(strstr(px_error_text(), "smollm2-135m"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),   cmocka_unit_test(test_rope),     cmocka_unit_test(test_stop_ids),
        cmocka_unit_test(test_heads),      cmocka_unit_test(test_refusals), cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_shapes),   cmocka_unit_test(test_families),
        cmocka_unit_test(test_scoring_pad),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
