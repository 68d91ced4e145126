/* Mapped models: the same values and the same forward as a loaded one, in the file's pages where they can lie there; and a
 * file that changes or ends under a map is noticed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/safetensors.h"
#include "scratch.h"
#include "tiny.h"

static void save(const px_model_config *config, px_dtype dtype)
{
    px_model model;
    tiny_model(&model, config, 3);
    assert_done(px_model_save(&model, scratch_dir, dtype, NULL));
    px_model_free(&model);
}

/* The order of names that most files have, where q, k, v of a layer are apart. */
static int by_name(const void *a, const void *b)
{
    return strcmp(((const px_tensor_source *)a)->name, ((const px_tensor_source *)b)->name);
}

static void save_sorted(const px_model_config *config, px_dtype dtype)
{
    px_model model;
    px_tensor_source sources[64];
    tiny_model(&model, config, 3);
    assert_done(px_model_save(&model, scratch_dir, PX_F32, NULL));
    for (int i = 0; i < model.param_count; i++) {
        const px_param *p = &model.params[i];
        sources[i] = (px_tensor_source){
            p->name, p->dims, {p->shape[0], p->shape[1]}, p->transposed, model.weights + p->offset, 0};
    }
    qsort(sources, (size_t)model.param_count, sizeof *sources, by_name);
    assert_done(px_safetensors_write(scratch_path("model.safetensors"), sources, model.param_count, dtype));
    px_model_free(&model);
}

static void forward(const px_model *model, px_real *logits)
{
    int32_t ids[24], starts[3], rows[24];
    int lengths[2] = {17, 7};
    px_batch batch = tiny_batch(ids, starts, lengths, 2, model->config.vocab_size);
    px_engine_plan plan = {.max_tokens = 24, .max_sequences = 2, .max_sequence = 17, .threads = 1};
    px_engine *engine;
    assert_done(px_engine_create(&engine, &model->config, &plan));
    px_engine_forward(engine, model, &batch);
    for (int i = 0; i < 24; i++) rows[i] = i;
    px_engine_logits(engine, model, rows, 24, logits);
    px_engine_destroy(engine);
}

/* A matrix of the model that has these values, used as bf16. */
static bool has_as_bf16(const px_model *mapped, const px_real *values, const px_param *param)
{
    const px_rows16 *all = &mapped->bf16->embed; /* the struct is nothing but these */
    for (int i = 0; i < 4 * mapped->config.layers + 2; i++) {
        for (int p = 0; p < 3 && all[i].piece[p] != NULL; p++) {
            bool equal = all[i].rows[p] == param->shape[0];
            for (size_t k = 0; k < param->count && equal; k++) {
                float value = px_from_bf16(all[i].piece[p][k]);
                equal = memcmp(&value, &values[k], sizeof value) == 0;
            }
            if (equal) return true;
        }
    }
    return false;
}

static void compare_values(const px_model *loaded, const px_model *mapped)
{
    for (int i = 0; i < loaded->param_count; i++) {
        const px_param *l = &loaded->params[i], *m = &mapped->params[i];
        const px_real *values = loaded->weights + l->offset;
        assert_string_equal(l->name, m->name);
        if (mapped->bf16 != NULL && l->dims == 2)
            assert_true(has_as_bf16(mapped, values, l));
        else
            assert_memory_equal(values, mapped->weights + m->offset, l->count * sizeof(px_real));
    }
}

/* A few tokens of two prompts: the first from weights as they are, the others from packed ones. */
static void generate(const px_model *model, float logprobs[2][8])
{
    static const int32_t prompts[2][3] = {{5, 7, 36}, {1, 2, 3}};
    px_generator_plan plan = {2, 16, 16, 2, PX_F32};
    px_sampling sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .max_new_tokens = 8};
    px_request requests[2] = {{.prompt = prompts[0], .prompt_length = 3, .samples = 1},
                              {.prompt = prompts[1], .prompt_length = 3, .slot = 1, .samples = 1}};
    int32_t ids[2][8];
    px_completion completions[2] = {{.ids = ids[0], .logprobs = logprobs[0]}, {.ids = ids[1], .logprobs = logprobs[1]}};
    px_generator *generator;
    sampling.rng = px_rng_make(21, "test", PX_RNG_SAMPLE);
    assert_done(px_generator_create(&generator, &model->config, &plan));
    assert_done(px_generator_run(generator, model, &sampling, requests, 2, completions, NULL, NULL));
    px_generator_destroy(generator);
}

/* Two processes of a node: one fills the memory, the other only sees it, and both see the loaded values. */
static void compare_shared(const px_model *loaded, size_t bytes)
{
    px_model_memory memory = {memfd_create("node", 0), 4096, true}, same = memory;
    px_model one, other;
    assert_int_equal(ftruncate(memory.fd, (off_t)(memory.offset + bytes)), 0);
    same.fill = false;
    assert_done(px_model_map(&other, scratch_dir, PX_HEAD_LM, &same, NULL));
    assert_done(px_model_map(&one, scratch_dir, PX_HEAD_LM, &memory, NULL));
    close(memory.fd);
    compare_values(loaded, &one);
    compare_values(loaded, &other);
    for (int i = 0; i < loaded->param_count; i++) assert_int_equal(one.params[i].offset, other.params[i].offset);
    px_model_free(&one);
    px_model_free(&other);
}

/* Returns how many bytes do not lie in files. */
static size_t compare(void)
{
    static px_real a[24 * 80], b[24 * 80];
    float drawn[2][2][8];
    px_model loaded, mapped, plan;
    px_map_bytes bytes;
    assert_done(px_model_load(&loaded, scratch_dir, PX_HEAD_LM, NULL));
    assert_done(px_model_map(&mapped, scratch_dir, PX_HEAD_LM, NULL, NULL));
    size_t values = 0;
    compare_values(&loaded, &mapped);
    for (int i = 0; i < loaded.param_count; i++) {
        values += loaded.params[i].count * (mapped.bf16 != NULL && loaded.params[i].dims == 2 ? 2 : sizeof(px_real));
    }
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    forward(&loaded, a);
    forward(&mapped, b);
    assert_memory_equal(a, b, sizeof a);
    generate(&loaded, drawn[0]);
    generate(&mapped, drawn[1]);
    assert_memory_equal(drawn[0], drawn[1], sizeof drawn[0]);
    assert_done(px_model_plan(&plan, &loaded.config));
    assert_done(px_model_map_plan(&plan, scratch_dir, &bytes));
    assert_true(bytes.beside + bytes.files >= values);
    assert_true(bytes.beside + bytes.files < values + 64 * (size_t)loaded.param_count + 4096);
    assert_done(px_model_map_check(&mapped));
    compare_shared(&loaded, bytes.beside);
    px_model_free(&plan);
    px_model_free(&loaded);
    px_model_free(&mapped);
    return bytes.beside;
}

static void test_same_values(void **state)
{
    (void)state;
    px_model_config llama = tiny_llama(PX_HEAD_LM, false), gpt2 = tiny_gpt2(PX_HEAD_LM, true);
    size_t layer = (12 * (24 + 12 + 12)) * sizeof(float); /* q, k, v of one */
    save(&llama, PX_F32);
    assert_int_equal(compare(), 0); /* as we write files, everything lies in place */
    save(&gpt2, PX_BF16);
    assert_true(compare() > 37 * 16 * sizeof(float)); /* [in, out] in the file: converted */
    save_sorted(&llama, PX_F32);
    assert_int_equal(compare(), px_whole_pages(2 * layer)); /* gate and up are neighbours by name too */
    save(&gpt2, PX_F32);
    assert_int_equal(compare(), px_whole_pages(2 * (16 * 48 + 16 * 16 + 2 * 16 * 24) * sizeof(float))); /* [in, out] in files */
}

/* Matrices in bf16 are used from their file: pieces that end within a panel, depths of more than a block. */
static void test_bf16(void **state)
{
    (void)state;
    if (!px_compute_reads_bf16()) skip();
    px_model_config llama = tiny_llama(PX_HEAD_LM, false), tied = tiny_llama(PX_HEAD_LM, true);
    save(&llama, PX_BF16);
    assert_int_equal(compare(), 4096); /* norms alone */
    save_sorted(&tied, PX_BF16);
    assert_int_equal(compare(), 4096);
    llama.hidden_size = 427;
    llama.intermediate_size = 70;
    llama.vocab_size = 71;
    save_sorted(&llama, PX_BF16);
    assert_int_equal(compare(), px_whole_pages(5 * 432 * sizeof(float)));
}

/* A new model has no file: all of it is in the node's memory. */
static void test_new_shared(void **state)
{
    (void)state;
    px_model_config config = tiny_llama(PX_HEAD_LM, false);
    px_model own, one, other;
    px_model_memory memory = {memfd_create("node", 0), 0, true}, same = memory;
    same.fill = false;
    assert_done(px_model_plan(&own, &config));
    assert_done(px_model_plan(&one, &config));
    assert_done(px_model_plan(&other, &config));
    assert_done(px_model_alloc(&own));
    px_model_init(&own, 3);
    assert_int_equal(ftruncate(memory.fd, (off_t)px_whole_pages(own.block * sizeof(px_real))), 0);
    assert_done(px_model_init_shared(&other, 3, &same));
    assert_done(px_model_init_shared(&one, 3, &memory));
    assert_memory_equal(own.weights, one.weights, own.block * sizeof(px_real));
    assert_memory_equal(own.weights, other.weights, own.block * sizeof(px_real));
    close(memory.fd);
    px_model_free(&own);
    px_model_free(&one);
    px_model_free(&other);
}

static void test_not_finite(void **state)
{
    (void)state;
    px_model_config config = tiny_llama(PX_HEAD_LM, false);
    px_model model;
    float infinite = INFINITY;
    save(&config, PX_F32);
    int fd = open(scratch_path("model.safetensors"), O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, &infinite, sizeof infinite, lseek(fd, 0, SEEK_END) - 4) == 4);
    close(fd);
    assert_refused(px_model_map(&model, scratch_dir, PX_HEAD_LM, NULL, NULL), "an infinity", "\"lm_head.weight\" holds inf");
}

static void test_changed(void **state)
{
    (void)state;
    px_model_config config = tiny_llama(PX_HEAD_LM, false);
    px_model model;
    save(&config, PX_F32);
    assert_done(px_model_map(&model, scratch_dir, PX_HEAD_LM, NULL, NULL));
    px_real first = model.weights[model.embed];
    save(&config, PX_BF16); /* renamed into place: the map keeps the old file */
    assert_done(px_model_map_check(&model));
    assert_true(model.weights[model.embed] == first);
    px_model_free(&model);

    save(&config, PX_F32);
    assert_done(px_model_map(&model, scratch_dir, PX_HEAD_LM, NULL, NULL));
    int fd = open(scratch_path("model.safetensors"), O_WRONLY);
    const struct timespec times[2] = {{0, UTIME_NOW}, {1, 0}};
    assert_true(fd >= 0 && pwrite(fd, "{", 1, 8) == 1 && futimens(fd, times) == 0);
    close(fd);
    assert_refused(px_model_map_check(&model), "written over", "model.safetensors: the file was changed");
    px_model_free(&model);
}

/* In a child: its end is what is tested. */
static void touch_cut_file(int out)
{
    px_model model;
    dup2(out, STDERR_FILENO);
    if (px_model_map(&model, scratch_dir, PX_HEAD_LM, NULL, NULL) != PX_OK ||
        truncate(scratch_path("model.safetensors"), 0) != 0) {
        _exit(1);
    }
    volatile px_real *weights = model.weights;
    _exit(weights[model.embed] == 0 ? 2 : 3);
}

static void test_cut(void **state)
{
    (void)state;
    px_model_config config = tiny_llama(PX_HEAD_LM, false);
    char text[600] = "";
    int ends[2], how;
    save(&config, PX_F32);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) touch_cut_file(ends[1]);
    close(ends[1]);
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(read(ends[0], text, sizeof text - 1) > 0);
    close(ends[0]);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), PX_DATA);
    assert_non_null(strstr(text, "model.safetensors: the file was cut"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_values), cmocka_unit_test(test_bf16), cmocka_unit_test(test_new_shared), cmocka_unit_test(test_not_finite),
                                       cmocka_unit_test(test_changed), cmocka_unit_test(test_cut)};
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
