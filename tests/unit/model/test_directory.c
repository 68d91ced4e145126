/* Model directories: what is saved is loaded with the same bits; shards, prefixes and buffers are understood; whatever
 * does not fit is refused by the tensor's name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "model/safetensors.h"
#include "phalanx/model.h"
#include "scratch.h"

static px_model_config tiny(px_family family, px_head head, bool tied)
{
    px_model_config c = {.family = family, .head = head, .tied = tied, .vocab_size = 11, .hidden_size = 8, .layers = 2};
    c.heads = 2;
    c.kv_heads = family == PX_GPT2 ? 2 : 1;
    c.head_dim = 4;
    c.intermediate_size = 12;
    c.max_positions = 16;
    c.norm_eps = 1e-5;
    c.attention_bias = c.output_bias = c.mlp_bias = family == PX_GPT2;
    c.activation = family == PX_GPT2 ? PX_GELU_TANH : PX_SILU;
    if (family == PX_LLAMA) c.rope = (px_rope){.type = PX_ROPE_DEFAULT, .theta = 100, .factor = 1, .rotary_dim = 4};
    c.rope.attention_factor = 1;
    c.bos_id = c.pad_id = -1;
    c.eos_ids[c.eos_count++] = 10;
    c.initializer_range = 0.5;
    c.reward_std = 1;
    return c;
}

static void make(px_model *model, px_family family, px_head head, bool tied)
{
    px_model_config config = tiny(family, head, tied);
    assert_done(px_model_config_check(&config));
    assert_done(px_model_plan(model, &config));
    assert_done(px_model_alloc(model));
    px_model_init(model, 5);
    for (size_t i = 0; i < model->block; i++) { /* exact in bf16 and f16 */
        model->weights[i] = (px_real)(rint(model->weights[i] * 64) / 64);
    }
}

static void assert_same_weights(const px_model *a, const px_model *b)
{
    assert_int_equal(a->block, b->block);
    assert_memory_equal(a->weights, b->weights, a->block * sizeof(px_real));
}

static void test_round_trip(void **state)
{
    (void)state;
    static const px_dtype dtypes[] = {PX_F32, PX_BF16, PX_F16};
    for (int i = 0; i < 2 * 3 * 2 * 3; i++) {
        px_model a, b;
        bool had_score;
        px_head head = (px_head)(i / 2 % 3);
        make(&a, i % 2 ? PX_LLAMA : PX_GPT2, head, i / 6 % 2);
        a.config.reward_mean = head == PX_HEAD_SCALAR ? 0.25 : 0;
        assert_done(px_model_save(&a, scratch_dir, dtypes[i / 12], NULL));
        assert_done(px_model_load(&b, scratch_dir, head, &had_score));
        assert_same_weights(&a, &b);
        assert_int_equal(had_score, head == PX_HEAD_SCALAR);
        assert_true(a.config.reward_mean == b.config.reward_mean);
        px_model_free(&a);
        px_model_free(&b);
    }
}

static void test_heads(void **state)
{
    (void)state;
    px_model lm, scored, bare;
    bool had_score = true;
    make(&lm, PX_LLAMA, PX_HEAD_LM, false);
    assert_done(px_model_save(&lm, scratch_dir, PX_F32, NULL));
    assert_done(px_model_load(&scored, scratch_dir, PX_HEAD_SCALAR, &had_score));
    assert_false(had_score);
    for (int c = 0; c < 8; c++) assert_true(scored.weights[scored.score + (size_t)c] == 0);
    assert_true(scored.weights[scored.embed] == lm.weights[lm.embed]);
    px_model_init_score(&scored, 1);
    assert_done(px_model_save(&scored, scratch_dir, PX_F32, NULL));
    assert_done(px_model_load(&bare, scratch_dir, PX_HEAD_NONE, &had_score));
    assert_false(had_score);
    assert_int_equal(bare.score, SIZE_MAX);
    px_model_free(&bare);
    assert_refused(px_model_load(&bare, scratch_dir, PX_HEAD_LM, NULL), "classifier as LM", "no language-model head");
    px_model_free(&lm);
    px_model_free(&scored);
}

/* The model's tensors as a file holds them, for tests that spoil one. */
static int sources_of(const px_model *model, px_tensor_source *sources)
{
    for (int i = 0; i < model->param_count; i++) {
        const px_param *p = &model->params[i];
        sources[i] = (px_tensor_source){
            p->name, p->dims, {p->shape[0], p->shape[1]}, p->transposed, model->weights + p->offset, p->by_head};
    }
    return model->param_count;
}

static px_status load_sources(const px_tensor_source *sources, int count, px_head head)
{
    px_model model;
    assert_done(px_safetensors_write(scratch_path("model.safetensors"), sources, count, PX_F32));
    px_status status = px_model_load(&model, scratch_dir, head, NULL);
    if (status == PX_OK) px_model_free(&model);
    return status;
}

static void test_tensors(void **state)
{
    (void)state;
    px_model model;
    px_tensor_source s[64], one;
    px_real zeros[64] = {0};
    make(&model, PX_GPT2, PX_HEAD_LM, true);
    assert_done(px_model_save(&model, scratch_dir, PX_F32, NULL));
    int n = sources_of(&model, s);

    assert_refused(load_sources(s, n - 1, PX_HEAD_LM), "missing", "lack tensor \"transformer.ln_f.bias\"");
    assert_refused(load_sources(s, n - 3, PX_HEAD_LM), "missing", " and 2 more");
    s[n] = (px_tensor_source){"h.7.attn.c_attn.bias", 1, {4, 1}, false, zeros, 0};
    assert_refused(load_sources(s, n + 1, PX_HEAD_LM), "extra", "unexpected tensor \"h.7.attn.c_attn.bias\"");
    s[n].name = "h.0.ln_1.bias";
    s[n].shape[0] = 8;
    assert_refused(load_sources(s, n + 1, PX_HEAD_LM), "twice", "twice");
    s[n] = (px_tensor_source){"h.0.attn.bias", 2, {4, 4}, false, zeros, 0};
    assert_done(load_sources(s, n + 1, PX_HEAD_LM));
    s[n].name = "transformer.h.1.attn.masked_bias";
    assert_done(load_sources(s, n + 1, PX_HEAD_LM));

    one = s[2 + 2]; /* c_attn.weight, as a linear layer's [out, in] instead of Conv1D's */
    assert_non_null(strstr(one.name, "c_attn.weight"));
    s[4].transposed = false;
    assert_refused(load_sources(s, n, PX_HEAD_LM), "not transposed",
                   "c_attn.weight\" has shape [24, 8]; valid by config.json is [8, 24]");
    s[4] = one;

    s[n] = (px_tensor_source){"lm_head.weight", 2, {11, 8}, false, model.weights + model.embed, 0};
    assert_done(load_sources(s, n + 1, PX_HEAD_LM)); /* tied, and there all the same */
    s[n].data = model.weights + model.position;
    assert_refused(load_sources(s, n + 1, PX_HEAD_LM), "another head", "differs from the embedding");
    s[n].shape[0] = 5;
    assert_refused(load_sources(s, n + 1, PX_HEAD_LM), "another head", "has not the shape of the embedding");
    assert_done(load_sources(s, n + 1, PX_HEAD_NONE));

    for (int i = 0; i < n; i++) s[i].name += strncmp(s[i].name, "transformer.", 12) == 0 ? 12 : 0;
    assert_done(load_sources(s, n, PX_HEAD_LM));
    px_model_free(&model);
}

static void test_not_finite(void **state)
{
    (void)state;
    px_model model;
    make(&model, PX_LLAMA, PX_HEAD_LM, true);
    px_real good = model.weights[model.norm_w];
    model.weights[model.norm_w] = NAN;
    assert_refused(px_model_save(&model, scratch_dir, PX_F32, NULL), "saving NaN", "model.norm.weight");
    model.weights[model.norm_w] = good;
    assert_done(px_model_save(&model, scratch_dir, PX_F32, NULL));
    px_buf buf = {0};
    assert_done(px_file_read(scratch_path("model.safetensors"), PX_TEXT_MOST, &buf));
    memcpy(buf.data + buf.length - 4, "\0\0\200\177", 4); /* the last tensor is the norm's: infinity */
    scratch_write("model.safetensors", buf.data, buf.length);
    px_buf_free(&buf);
    px_model_free(&model);
    assert_refused(px_model_load(&model, scratch_dir, PX_HEAD_LM, NULL), "inf",
                   "tensor \"model.norm.weight\" holds inf");
}

static void write_index(const char *last_name, const char *last_file)
{
    char text[4096];
    size_t used = (size_t)snprintf(text, sizeof text, "{\"weight_map\":{");
    px_tensors t;
    const char *files[] = {"a.safetensors", "b.safetensors"};
    for (int f = 0; f < 2; f++) {
        assert_done(px_tensors_open_file(&t, scratch_path(files[f])));
        for (int i = 0; i < t.count; i++) {
            used += (size_t)snprintf(text + used, sizeof text - used, "\"%s\":\"%s\",", t.list[i].name, files[f]);
        }
        px_tensors_close(&t);
    }
    used -= 1;
    if (last_name) used += (size_t)snprintf(text + used, sizeof text - used, ",\"%s\":%s", last_name, last_file);
    snprintf(text + used, sizeof text - used, "}}");
    scratch_text("model.safetensors.index.json", text);
}

static void test_shards(void **state)
{
    (void)state;
    px_model model, back;
    px_tensor_source s[64];
    make(&model, PX_LLAMA, PX_HEAD_LM, false);
    assert_done(px_model_save(&model, scratch_dir, PX_F32, NULL));
    int n = sources_of(&model, s);
    assert_int_equal(px_tree_remove(scratch_path("model.safetensors")), PX_OK);
    assert_done(px_safetensors_write(scratch_path("a.safetensors"), s, n / 2, PX_F32));
    assert_done(px_safetensors_write(scratch_path("b.safetensors"), s + n / 2, n - n / 2, PX_F32));
    write_index(NULL, NULL);
    assert_done(px_model_load(&back, scratch_dir, PX_HEAD_LM, NULL));
    assert_same_weights(&model, &back);
    px_model_free(&back);

    static const struct {
        const char *name, *file, *part;
    } cases[] = {{"x", "\"../a.safetensors\"", "of the same directory"},
                 {"x", "\"/etc/passwd\"", "of the same directory"},
                 {"x", "\"..\"", "of the same directory"},
                 {"x", "3", "of the same directory"},
                 {"x", "\"c.safetensors\"", "index.json: weight_map names the file \"c.safetensors\", which is not there"},
                 {"x", "\"a.safetensors\"", "tensor \"x\" is not in the file"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_index(cases[i].name, cases[i].file);
        assert_refused(px_model_load(&back, scratch_dir, PX_HEAD_LM, NULL), cases[i].file, cases[i].part);
    }
    assert_done(px_safetensors_write(scratch_path("b.safetensors"), s, n, PX_F32));
    scratch_text("model.safetensors.index.json", "{\"weight_map\":{\"lm_head.weight\":\"b.safetensors\","
                                                 "\"model.embed_tokens.weight\":\"a.safetensors\"}}");
    assert_refused(px_model_load(&back, scratch_dir, PX_HEAD_LM, NULL), "twice", "more than one shard");
    scratch_text("model.safetensors.index.json", "{\"weight_map\":[]}");
    assert_refused(px_model_load(&back, scratch_dir, PX_HEAD_LM, NULL), "no map", "weight_map");
    px_model_free(&model);
}

/* What torch.save writes, since 1.6 and before. */
static const char zipped[] = "PK\3\4\0\0\10\10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\20\0\22\0archive/data.pklFB";
static const char bare[] = "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.";

static void refuses_pickles(px_model *model)
{
    static const char *const names[] = {"optimizer.pt", "consolidated.00.pth", "last.ckpt", "model.bin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char want[80];
        scratch_text(names[i], "x");
        snprintf(want, sizeof want, "%s: pickled weights", names[i]);
        assert_refused(px_model_load(model, scratch_path(names[i]), PX_HEAD_LM, NULL), names[i], want);
        assert_refused(px_model_load(model, scratch_dir, PX_HEAD_LM, NULL), names[i], "pytorch_model.bin: pickled");
    }
    assert_int_equal(px_tree_remove(scratch_path("pytorch_model.bin")), PX_OK);
    assert_refused(px_model_load(model, scratch_dir, PX_HEAD_LM, NULL), "first", "consolidated.00.pth: pickled");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(px_tree_remove(scratch_path(names[i])), PX_OK);
    }
    scratch_write("weights", zipped, sizeof zipped - 1);
    assert_refused(px_model_load(model, scratch_path("weights"), PX_HEAD_LM, NULL), "zip", "weights: pickled weights");
    scratch_write("model.safetensors", zipped, sizeof zipped - 1);
    assert_refused(px_model_load(model, scratch_dir, PX_HEAD_LM, NULL), "zip", "model.safetensors: pickled weights");
    scratch_write("model.safetensors", bare, sizeof bare - 1);
    assert_refused(px_model_load(model, scratch_dir, PX_HEAD_LM, NULL), "bare", "model.safetensors: pickled weights");
    scratch_write("model.safetensors", "PK\3\4 something else, not zipped", 31);
    assert_refused(px_model_load(model, scratch_dir, PX_HEAD_LM, NULL), "other", "not a safetensors file");
    assert_int_equal(px_tree_remove(scratch_path("model.safetensors")), PX_OK);
}

static void test_absent(void **state)
{
    (void)state;
    px_model model;
    const char *gone[] = {"model.safetensors", "model.safetensors.index.json"};
    for (int i = 0; i < 2; i++) assert_int_equal(px_tree_remove(scratch_path(gone[i])), PX_OK);
    assert_refused(px_model_load(&model, scratch_dir, PX_HEAD_LM, NULL), "none", "no weights");
    scratch_text("pytorch_model.bin", "PK");
    assert_refused(px_model_load(&model, scratch_dir, PX_HEAD_LM, NULL), "pickle",
                   "pytorch_model.bin: pickled weights");
    refuses_pickles(&model);
    make(&model, PX_GPT2, PX_HEAD_LM, true);
    assert_int_equal(px_model_save(&model, scratch_path("no/such"), PX_F32, NULL), PX_IO);
    assert_int_equal(px_model_save(&model, scratch_dir, PX_I64, NULL), PX_USAGE);

    assert_done(px_dir_create(scratch_path("tokenizer")));
    scratch_text("tokenizer/tokenizer.json", "{\"a\":1}");
    scratch_text("tokenizer/other.json", "{}");
    assert_done(px_dir_create(scratch_path("out")));
    assert_done(px_model_save(&model, scratch_path("out"), PX_F32, scratch_path("tokenizer")));
    px_buf buf = {0};
    assert_done(px_file_read(scratch_path("out/tokenizer.json"), PX_TEXT_MOST, &buf));
    assert_string_equal(buf.data, "{\"a\":1}");
    assert_false(px_file_exists(scratch_path("out/other.json")));
    px_buf_free(&buf);
    px_model_free(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_heads),  cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_shards), cmocka_unit_test(test_absent),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
