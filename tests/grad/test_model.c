/* Gradients of whole models against central differences, in double: every parameter of tiny models of every family,
 * through the LM head (log-probability and entropy, with a temperature) and through the scalar head. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "../unit/model/tiny.h"

#define MAX_TOKENS 64
static int32_t ids[MAX_TOKENS], starts[8], rows[MAX_TOKENS], targets[MAX_TOKENS];
static px_row_stats stats[MAX_TOKENS];
static double dvalues[MAX_TOKENS];

typedef struct subject {
    px_model model;
    px_engine *engine;
    px_batch batch;
    int n;
} subject;

/* The loss: sum over rows of a logp + b logp^2 + c entropy, weights that differ by row; for values v + v^2 / 2. */
static double weight_of(int row)
{
    return 1 + 0.1 * row;
}

static void loss_rows(void *arg, int first, int count, const px_row_stats *chunk, double *dlogprob, double *dentropy)
{
    double *loss = arg;
    for (int i = 0; i < count; i++) {
        double w = weight_of(first + i), lp = chunk[i].logprob;
        *loss += w * lp + 0.05 * lp * lp + 0.3 * w * chunk[i].entropy;
        dlogprob[i] = w + 0.1 * lp;
        dentropy[i] = 0.3 * w;
    }
}

static double loss_of(subject *s)
{
    double loss = 0, dlogprob[MAX_TOKENS], dentropy[MAX_TOKENS], values[MAX_TOKENS];
    px_engine_forward(s->engine, &s->model, &s->batch);
    if (s->model.config.head == PX_HEAD_LM) {
        px_engine_logprobs(s->engine, &s->model, rows, targets, s->n, 0.9, true, stats);
        loss_rows(&loss, 0, s->n, stats, dlogprob, dentropy);
    } else {
        px_engine_values(s->engine, &s->model, rows, s->n, values);
        for (int i = 0; i < s->n; i++) {
            loss += weight_of(i) * values[i] + values[i] * values[i] / 2;
            dvalues[i] = weight_of(i) + values[i];
        }
    }
    return loss;
}

static void gradient(subject *s, px_real *grads)
{
    double loss = loss_of(s);
    if (s->model.config.head == PX_HEAD_LM) {
        double again = 0;
        px_engine_lm_backward(s->engine, &s->model, grads, rows, targets, s->n, 0.9, true, loss_rows, &again);
        assert_true(fabs(loss - again) < 1e-10 * fabs(loss));
    } else {
        px_engine_value_backward(s->engine, &s->model, grads, rows, dvalues, s->n);
    }
    px_engine_backward(s->engine, &s->model, grads, NULL, NULL);
}

/* Central difference: truncation and rounding are both about 1e-10 of the loss at this step. */
static double difference(subject *s, size_t at)
{
    const double h = 1e-5;
    px_real *w = &s->model.weights[at], keep = *w;
    *w = keep + h;
    s->model.version++;
    double above = loss_of(s);
    *w = keep - h;
    s->model.version++;
    double below = loss_of(s);
    *w = keep;
    s->model.version++;
    return (above - below) / (2 * h);
}

/* Errors are taken relative to the norm of the tensor's gradient: single entries may be zero by chance. The bias of k
 * shifts all scores of a query alike: its gradient is zero without rotary positions. */
static void check_tensor(subject *s, const px_param *p, const px_real *grads)
{
    double norm = 0, worst = 0;
    for (size_t i = 0; i < p->count; i++) norm += grads[p->offset + i] * grads[p->offset + i];
    norm = sqrt(norm);
    if (s->model.config.rope.type == PX_ROPE_NONE && strstr(p->name, "k_proj.bias")) {
        assert_true(norm < 1e-10);
        norm = 1;
    }
    if (norm < 1e-4) fail_msg("%s: gradient is zero", p->name);
    for (size_t i = 0; i < p->count; i++) {
        double error = fabs(difference(s, p->offset + i) - grads[p->offset + i]);
        worst = error > worst ? error : worst;
    }
    if (!(worst < 1e-6 * norm)) fail_msg("%s: error %g of gradient norm %g", p->name, worst, norm);
}

static void check(px_model_config config)
{
    static const int lengths[] = {4, 1, 17};
    subject s;
    config.initializer_range = 0.4;
    tiny_model(&s.model, &config, 3);
    px_engine_plan plan = {.max_tokens = MAX_TOKENS, .max_sequences = 4, .max_sequence = 20, .train = true,
                           .threads = 1};
    assert_int_equal(px_engine_create(&s.engine, &config, &plan), PX_OK);
    s.batch = tiny_batch(ids, starts, lengths, 3, config.vocab_size);
    s.n = tiny_targets(&s.batch, rows, targets);
    px_real *grads = px_alloc_array(s.model.block, sizeof *grads, "gradients");
    gradient(&s, grads);
    for (int p = 0; p < s.model.param_count; p++) check_tensor(&s, &s.model.params[p], grads);
    px_free(grads);
    px_engine_destroy(s.engine);
    px_model_free(&s.model);
}

static void gpt2_tied(void **state)
{
    (void)state;
    px_model_config c = tiny_gpt2(PX_HEAD_LM, true);
    c.max_positions = 20;
    check(c);
}

static void gpt2_untied_erf(void **state)
{
    (void)state;
    px_model_config c = tiny_gpt2(PX_HEAD_LM, false);
    c.max_positions = 20;
    c.activation = PX_GELU_ERF;
    check(c);
}

static void gpt2_scalar(void **state)
{
    (void)state;
    px_model_config c = tiny_gpt2(PX_HEAD_SCALAR, true);
    c.max_positions = 20;
    check(c);
}

static void llama_gqa_tied(void **state)
{
    (void)state;
    check(tiny_llama(PX_HEAD_LM, true));
}

static void llama_untied_biases(void **state)
{
    (void)state;
    px_model_config c = tiny_llama(PX_HEAD_LM, false);
    c.attention_bias = c.output_bias = c.mlp_bias = true;
    check(c);
}

static void llama3_rope(void **state)
{
    (void)state;
    px_model_config c = tiny_llama(PX_HEAD_LM, true);
    c.rope = (px_rope){.type = PX_ROPE_LLAMA3, .theta = 100, .factor = 8, .low_freq = 1, .high_freq = 4,
                       .original_positions = 32, .rotary_dim = 6};
    check(c);
}

static void llama_scalar(void **state)
{
    (void)state;
    check(tiny_llama(PX_HEAD_SCALAR, true));
}

static px_model_config small(px_family family)
{
    px_model_config c = tiny_family(family, PX_HEAD_LM);
    c.vocab_size = 19;
    c.hidden_size = 8;
    c.heads /= 2;
    c.kv_heads /= 2;
    c.intermediate_size = 12;
    c.max_positions = 20;
    return c;
}

static void every_family(void **state)
{
    (void)state;
    for (int family = PX_MISTRAL; family < PX_FAMILIES; family++) check(small((px_family)family));
}

/* Attention and MLP one after the other, no biases on the attention, all of a head rotating. */
static void gpt_neox_sequential(void **state)
{
    (void)state;
    px_model_config c = small(PX_GPT_NEOX);
    c.parallel_residual = c.attention_bias = c.output_bias = false;
    c.rope.rotary_dim = c.head_dim;
    check(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_tied),      cmocka_unit_test(gpt2_untied_erf),     cmocka_unit_test(gpt2_scalar),
        cmocka_unit_test(llama_gqa_tied), cmocka_unit_test(llama_untied_biases), cmocka_unit_test(llama3_rope),
        cmocka_unit_test(llama_scalar),   cmocka_unit_test(every_family),        cmocka_unit_test(gpt_neox_sequential),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
