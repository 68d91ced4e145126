/* Heads on chosen rows: the LM head in chunks, so that [tokens, V] never exists, and the scalar head. */
#include <string.h>

#include "engine.h"

/* Of a row of the batch, which was wanted of it. */
static size_t place_of(const px_engine *engine, int32_t row)
{
    PX_CHECK(row >= 0 && row < engine->tokens && engine->place[row] >= 0);
    return (size_t)engine->place[row];
}

static void gather_rows(const px_engine *engine, const int32_t *rows, int n)
{
    size_t C = (size_t)engine->shape.config.hidden_size;
    for (int i = 0; i < n; i++) {
        memcpy(engine->head_hidden + (size_t)i * C, engine->hidden + place_of(engine, rows[i]) * C, C * sizeof(px_real));
    }
}

static int chunk_rows(const px_engine *engine, int first, int n)
{
    return n - first < engine->head_rows ? n - first : engine->head_rows;
}

void px_engine_logprobs(px_engine *engine, const px_model *model, const int32_t *rows, const int32_t *targets, int n,
                        double temperature, bool want_entropy, px_row_stats *stats)
{
    int V = model->config.vocab_size;
    for (int first = 0; first < n; first += engine->head_rows) {
        int count = chunk_rows(engine, first, n);
        gather_rows(engine, rows + first, count);
        px_head_logits(&engine->compute, &engine->shape, model, engine->logits, engine->head_hidden, count);
        px_softmax_rows(&engine->compute, stats + first, engine->logits, V, targets + first, count, V, temperature,
                        want_entropy);
    }
}

void px_engine_logits(px_engine *engine, const px_model *model, const int32_t *rows, int n, px_real *logits)
{
    size_t V = (size_t)model->config.vocab_size;
    for (int first = 0; first < n; first += engine->head_rows) {
        int count = chunk_rows(engine, first, n);
        gather_rows(engine, rows + first, count);
        px_head_logits(&engine->compute, &engine->shape, model, logits + (size_t)first * V, engine->head_hidden, count);
    }
}

/* One chunk, from logits to gradients: dW += dlogits^T hidden, and the rows' part of the hidden gradient. */
static void chunk_backward(px_engine *engine, const px_model *model, px_real *grads, const int32_t *rows,
                           const int32_t *targets, int count, double temperature, bool want_entropy, bool add)
{
    int V = model->config.vocab_size, C = model->config.hidden_size;
    px_weight head = px_shape_weight(&engine->shape, model, 0, PX_LM_HEAD);
    px_softmax_rows_backward(&engine->compute, engine->logits, V, engine->stats, targets, engine->dlogprob,
                             want_entropy ? engine->dentropy : NULL, count, V, temperature);
    px_linear_backward_weight(&engine->compute, grads + model->lm_head, NULL, engine->logits, V, engine->head_hidden, C,
                              count, V, C, add);
    px_linear_backward_input(&engine->compute, engine->head_gradient, C, engine->logits, V, &head, count, false);
    for (int i = 0; i < count; i++) {
        px_real *to = engine->gradients.dnorm + place_of(engine, rows[i]) * (size_t)C;
        const px_real *from = engine->head_gradient + (size_t)i * (size_t)C;
        for (int c = 0; c < C; c++) to[c] += from[c];
    }
}

static void begin_backward(px_engine *engine, const px_model *model, px_real *grads, bool head)
{
    PX_CHECK(engine->plan.train);
    px_engine_begin_gradients(engine, model, grads, head);
    memset(engine->gradients.dnorm, 0,
           (size_t)engine->kept * (size_t)engine->shape.config.hidden_size * sizeof(px_real));
}

void px_engine_lm_backward(px_engine *engine, const px_model *model, px_real *grads, const int32_t *rows,
                           const int32_t *targets, int n, double temperature, bool want_entropy, px_row_loss loss,
                           void *arg)
{
    int V = model->config.vocab_size;
    begin_backward(engine, model, grads, n > 0);
    for (int first = 0; first < n; first += engine->head_rows) {
        int count = chunk_rows(engine, first, n);
        gather_rows(engine, rows + first, count);
        px_head_logits(&engine->compute, &engine->shape, model, engine->logits, engine->head_hidden, count);
        px_softmax_rows(&engine->compute, engine->stats, engine->logits, V, targets + first, count, V, temperature,
                        want_entropy);
        memset(engine->dlogprob, 0, (size_t)count * sizeof(double));
        memset(engine->dentropy, 0, (size_t)count * sizeof(double));
        loss(arg, first, count, engine->stats, engine->dlogprob, engine->dentropy);
        chunk_backward(engine, model, grads, rows + first, targets + first, count, temperature, want_entropy,
                       engine->gradients.add || first > 0);
    }
}

void px_engine_values(px_engine *engine, const px_model *model, const int32_t *rows, int n, double *values)
{
    size_t C = (size_t)model->config.hidden_size;
    const px_real *score = model->weights + model->score;
    for (int i = 0; i < n; i++) {
        const px_real *hidden = engine->hidden + place_of(engine, rows[i]) * C;
        double sum = 0;
        for (size_t c = 0; c < C; c++) sum += (double)score[c] * hidden[c];
        values[i] = sum - model->config.reward_mean;
    }
}

void px_engine_value_backward(px_engine *engine, const px_model *model, px_real *grads, const int32_t *rows,
                              const double *dvalues, int n)
{
    size_t C = (size_t)model->config.hidden_size;
    const px_real *score = model->weights + model->score;
    px_real *dscore = grads + model->score;
    begin_backward(engine, model, grads, false);
    for (int i = 0; i < n; i++) {
        size_t at = place_of(engine, rows[i]) * C;
        const px_real *hidden = engine->hidden + at;
        px_real *dhidden = engine->gradients.dnorm + at;
        px_real dvalue = (px_real)dvalues[i];
        for (size_t c = 0; c < C; c++) {
            dscore[c] += dvalue * hidden[c];
            dhidden[c] += dvalue * score[c];
        }
    }
}
