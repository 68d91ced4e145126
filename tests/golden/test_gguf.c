/* GGUF files against the same models as safetensors, and against the values of the gguf package (make_gguf.py); and files
 * that are not what they say. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/model/scratch.h"
#include "model/safetensors.h"
#include "phalanx/model.h"

static const char *fixture(const char *folder, const char *name, const char *end)
{
    static char path[2][PX_PATH_MAX];
    static int turn;
    turn = !turn;
    snprintf(path[turn], PX_PATH_MAX, "%s/tests/golden/%s/%s%s", PX_SOURCE_DIR, folder, name, end);
    return path[turn];
}

/* Weights and configuration are those of the directory; Gemma's norms lose a digit or two to the 1 that was added. */
static void same_model(const char *name)
{
    px_model one, two;
    assert_done(px_model_load(&one, fixture("models", name, ""), PX_HEAD_LM, NULL));
    assert_done(px_model_load(&two, fixture("gguf", name, ".gguf"), PX_HEAD_LM, NULL));
    px_model_config *a = &one.config, *b = &two.config;
    a->pad_id = b->pad_id;
    a->initializer_range = b->initializer_range;
    assert_int_equal(a->family, b->family);
    assert_int_equal(a->tied, b->tied);
    assert_int_equal(a->vocab_size, b->vocab_size);
    assert_int_equal(a->max_positions, b->max_positions);
    assert_int_equal(a->activation, b->activation);
    assert_int_equal(a->parallel_residual, b->parallel_residual);
    assert_int_equal(a->bos_id, b->bos_id);
    assert_int_equal(a->eos_count, b->eos_count);
    assert_int_equal(a->eos_ids[0], b->eos_ids[0]);
    assert_true(a->norm_eps == b->norm_eps);
    assert_int_equal(a->rope.type, b->rope.type);
    assert_true(a->rope.theta == b->rope.theta && a->rope.factor == b->rope.factor);
    assert_true(a->rope.original_positions == b->rope.original_positions);
    assert_true(fabs(a->rope.attention_factor - b->rope.attention_factor) < 1e-12);
    assert_int_equal(a->rope.rotary_dim, b->rope.rotary_dim);
    assert_int_equal(one.param_count, two.param_count);
    for (int i = 0; i < one.param_count; i++) {
        const px_param *p = &one.params[i];
        assert_string_equal(p->name, two.params[i].name);
        for (size_t k = 0; k < p->count; k++) {
            double x = one.weights[p->offset + k], y = two.weights[two.params[i].offset + k];
            double limit = a->family == PX_GEMMA && p->dims == 1 ? 2.4e-7 : 0;
            if (!(fabs(x - y) <= limit)) fail_msg("%s: %s[%zu]: %.9g, %.9g", name, p->name, k, x, y);
        }
    }
    px_model_free(&one);
    px_model_free(&two);
}

static void models_are_those_of_safetensors(void **state)
{
    (void)state;
    static const char *const names[] = {"llama_untied_bias", "qwen2_yarn", "qwen3_tied",
                                        "gemma_tied",        "gpt2_tied",  "neox_parallel"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) same_model(names[i]);
}

static void values_are_those_of_the_package(void **state)
{
    (void)state;
    px_tensors tensors;
    px_buf expected = {0};
    assert_done(px_tensors_open(&tensors, fixture("gguf", "types", ".gguf")));
    assert_done(px_file_read(fixture("gguf", "types", ".bin"), PX_TEXT_MOST, &expected));
    assert_int_equal(expected.length, (size_t)tensors.count * 512 * sizeof(float));
    for (int i = 0; i < tensors.count; i++) {
        px_real values[512];
        const px_tensor *tensor = &tensors.list[i];
        int at = atoi(tensor->name + strlen("model.layers."));
        assert_int_equal(tensor->count, 512);
        assert_done(px_tensor_read(tensor, false, values));
        for (size_t k = 0; k < 512; k++) {
            float wanted;
            memcpy(&wanted, expected.data + ((size_t)at * 512 + k) * sizeof wanted, sizeof wanted);
            if ((float)values[k] != wanted) fail_msg("%s [%zu]: %.9g, %.9g", tensor->dtype, k, (double)values[k], (double)wanted);
        }
    }
    px_buf_free(&expected);
    px_tensors_close(&tensors);
}

/* ---- bad files --------------------------------------------------------------------------------------------------- */
static void refused(const px_buf *file, size_t length, const char *what, const char *part)
{
    px_tensors tensors;
    scratch_write("bad.gguf", file->data, length);
    assert_refused(px_tensors_open(&tensors, scratch_path("bad.gguf")), what, part);
}

/* Where the little-endian text of a tensor's name is followed by its dimensions, type and offset. */
static size_t find(const px_buf *file, const char *text)
{
    for (size_t i = 0; i + strlen(text) < file->length; i++) {
        if (memcmp(file->data + i, text, strlen(text)) == 0) return i + strlen(text);
    }
    fail_msg("no %s", text);
    return 0;
}

static void bad_files_are_named(void **state)
{
    (void)state;
    px_buf file = {0};
    px_tensors tensors;
    assert_done(px_file_read(fixture("gguf", "types", ".gguf"), PX_TEXT_MOST, &file));
    for (size_t cut = 0; cut < file.length; cut += cut < 900 ? 1 : 97) { /* the header at every byte */
        scratch_write("bad.gguf", file.data, cut);
        assert_refused(px_tensors_open(&tensors, scratch_path("bad.gguf")), "cut", "bad.gguf");
    }
    struct {
        size_t at;
        unsigned char byte;
        const char *part;
    } changes[] = {
        {0, 'X', "not a GGUF file"},
        {4, 9, "version 9"},
        {15, 0x7f, "more than the file holds"}, /* tensors */
        {23, 0x7f, "more than the file holds"}, /* keys */
        {find(&file, "blk.2.ffn_up.weight"), 9, "\"blk.2.ffn_up.weight\": has no or more than 4 dimensions"},
        {find(&file, "blk.2.ffn_up.weight") + 4, 1, "whole blocks"},
        {find(&file, "blk.2.ffn_up.weight") + 11, 0x7f, "blk.2.ffn_up.weight"},
        {find(&file, "blk.2.ffn_up.weight") + 20, 10, "has type Q2_K (10)"},
        {find(&file, "blk.2.ffn_up.weight") + 20, 200, "has type unknown (200)"},
        {find(&file, "blk.2.ffn_up.weight") + 24, 1, "alignment"},
        {find(&file, "blk.2.ffn_up.weight") + 30, 1, "lie outside the file"},
        {find(&file, "blk.2.ffn_up.weight") + 25, 0, "overlap"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char kept = file.data[changes[i].at];
        file.data[changes[i].at] = (char)changes[i].byte;
        refused(&file, file.length, changes[i].part, changes[i].part);
        file.data[changes[i].at] = kept;
    }
    px_buf_free(&file);
}

static void which_file_is_meant(void **state)
{
    (void)state;
    px_buf file = {0};
    char path[PX_PATH_MAX];
    assert_done(px_file_read(fixture("gguf", "types", ".gguf"), PX_TEXT_MOST, &file));
    assert_done(px_dir_create(scratch_path("two")));
    scratch_write("two/a.gguf", file.data, file.length);
    assert_done(px_gguf_find(path, sizeof path, scratch_path("two")));
    assert_string_equal(path, scratch_path("two/a.gguf"));
    scratch_write("two/b.gguf", file.data, file.length);
    assert_refused(px_gguf_find(path, sizeof path, scratch_path("two")), "two files", "more than one .gguf");
    scratch_text("two/model.safetensors", "");
    assert_done(px_gguf_find(path, sizeof path, scratch_path("two")));
    assert_string_equal(path, "");
    px_buf_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_are_those_of_safetensors),
        cmocka_unit_test(values_are_those_of_the_package),
        cmocka_unit_test_setup_teardown(bad_files_are_named, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(which_file_is_meant, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
