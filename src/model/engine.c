/* The engine: memory planned once, and the forward pass over a ragged batch. */
#include <string.h>

#include "engine.h"

#define LOGITS_BYTES ((size_t)64 << 20) /* bound on a chunk of logits */
#define HEAD_ROWS_MIN 16
#define HEAD_ROWS_MAX 256
#define TRAIN_FACTOR 4 /* by which both bounds are larger in training, which passes over more with each chunk */

/* More rows mean fewer passes over the head's weights and gradient, which are the larger traffic. */
static int head_rows(const px_model_config *config, const px_engine_plan *plan)
{
    if (config->head != PX_HEAD_LM) return 0;
    size_t factor = plan->train ? TRAIN_FACTOR : 1;
    size_t rows = factor * LOGITS_BYTES / ((size_t)config->vocab_size * sizeof(px_real));
    if (rows > factor * HEAD_ROWS_MAX) rows = factor * HEAD_ROWS_MAX;
    if (rows < HEAD_ROWS_MIN) rows = HEAD_ROWS_MIN;
    return rows < (size_t)plan->max_tokens ? (int)rows : plan->max_tokens;
}

static void lay_out_layer(const px_engine *engine, px_layout *layout, px_activations *a, int rows, int mlp_rows)
{
    const px_shape *shape = &engine->shape;
    size_t M = (size_t)rows, C = (size_t)shape->config.hidden_size, real = sizeof(px_real);
    bool train = engine->plan.train;
    a->keep = train;
    a->qkv = px_layout_take(layout, M * (size_t)shape->qkv, real);
    a->attention = px_layout_take(layout, M * (size_t)shape->q, real);
    a->mid = px_layout_take(layout, M * C, real);
    a->up = px_layout_take(layout, (size_t)mlp_rows * (size_t)shape->up, real);
    a->act = px_layout_take(layout, (size_t)mlp_rows * (size_t)shape->config.intermediate_size, real);
    if (!train) return;
    if (shape->traits.head_norm) {
        a->qk = px_layout_take(layout, M * (size_t)(shape->q + shape->kv), real);
        a->qk_rstd = px_layout_take(layout, M * (size_t)(shape->config.heads + shape->config.kv_heads), real);
    }
    a->lse = px_layout_take(layout, M * (size_t)shape->config.heads, real);
    if (shape->traits.layernorm) {
        a->mean1 = px_layout_take(layout, M, real);
        a->mean2 = px_layout_take(layout, M, real);
    }
    a->rstd1 = px_layout_take(layout, M, real);
    a->rstd2 = px_layout_take(layout, M, real);
}

static void lay_out_layers(px_engine *engine, px_layout *layout)
{
    const px_shape *shape = &engine->shape;
    int rows = engine->plan.max_tokens, L = shape->config.layers;
    size_t hidden = (size_t)rows * (size_t)shape->config.hidden_size;
    px_activations *layers = px_layout_take(layout, (size_t)L, sizeof *layers);
    px_real *norm = px_layout_take(layout, hidden, sizeof(px_real));
    px_real *x = px_layout_take(layout, hidden, sizeof(px_real));
    px_activations a = {0};
    bool train = engine->plan.train;
    int mlp_rows = !train && rows > shape->mlp_rows ? shape->mlp_rows : rows;
    for (int layer = 0; layer < L; layer++) {
        if ((train && !engine->plan.recompute) || layer == 0) lay_out_layer(engine, layout, &a, rows, mlp_rows);
        a.norm = norm;
        a.x = x;
        if (train) x = px_layout_take(layout, hidden, sizeof(px_real));
        a.out = x;
        if (layers) layers[layer] = a;
    }
    engine->layers = layers;
    engine->last = x;
}

static void lay_out_gradients(px_engine *engine, px_layout *layout)
{
    const px_shape *shape = &engine->shape;
    px_gradients *d = &engine->gradients;
    size_t M = (size_t)engine->plan.max_tokens, C = (size_t)shape->config.hidden_size, real = sizeof(px_real);
    size_t I = (size_t)shape->config.intermediate_size;
    d->dx = px_layout_take(layout, M * C, real);
    d->dnorm = px_layout_take(layout, M * C, real);
    if (shape->config.parallel_residual) d->dside = px_layout_take(layout, M * C, real);
    /* attention and MLP take turns at one region */
    px_layout attention = *layout, mlp = *layout;
    d->dqkv = px_layout_take(&attention, M * (size_t)shape->qkv, real);
    d->dattention = px_layout_take(&attention, M * (size_t)shape->q, real);
    d->dup = px_layout_take(&mlp, M * (size_t)shape->up, real);
    d->dact = shape->traits.gated ? px_layout_take(&mlp, M * I, real) : d->dup;
    layout->used = attention.used > mlp.used ? attention.used : mlp.used;
}

static void lay_out_head(px_engine *engine, px_layout *layout)
{
    const px_model_config *config = &engine->shape.config;
    size_t n = (size_t)engine->head_rows, C = (size_t)config->hidden_size;
    if (n == 0) return;
    engine->head_hidden = px_layout_take(layout, n * C, sizeof(px_real));
    engine->logits = px_layout_take(layout, n * (size_t)config->vocab_size, sizeof(px_real));
    if (!engine->plan.train) return;
    engine->head_gradient = px_layout_take(layout, n * C, sizeof(px_real));
    engine->stats = px_layout_take(layout, n, sizeof(px_row_stats));
    engine->dlogprob = px_layout_take(layout, n, sizeof(double));
    engine->dentropy = px_layout_take(layout, n, sizeof(double));
}

static size_t lay_out(px_engine *engine, char *base)
{
    px_layout layout = {.base = base};
    const px_engine_plan *plan = &engine->plan;
    const px_model_config *config = &engine->shape.config;
    size_t M = (size_t)plan->max_tokens;
    engine->ids = px_layout_take(&layout, M, sizeof(int32_t));
    engine->positions = px_layout_take(&layout, M, sizeof(int32_t));
    engine->spans = px_layout_take(&layout, (size_t)plan->max_sequences, sizeof(px_span));
    engine->tail.spans = px_layout_take(&layout, (size_t)plan->max_sequences, sizeof(px_span));
    engine->first = px_layout_take(&layout, (size_t)plan->max_sequences, sizeof(int32_t));
    engine->place = px_layout_take(&layout, M, sizeof(int32_t));
    /* every sequence starts at a key block of its own */
    size_t cached = px_kv_bytes(false, config->kv_heads, config->head_dim, plan->max_tokens) +
                    (size_t)plan->max_sequences * px_kv_bytes(false, config->kv_heads, config->head_dim, 1);
    engine->keys = px_layout_take(&layout, cached, 1);
    engine->values = px_layout_take(&layout, cached, 1);
    px_shape_layout(&engine->shape, &layout, plan->max_sequence);
    if (plan->packed || (plan->train && plan->precision == PX_BF16)) px_packed_layout(&engine->shape, &layout, plan->train);
    lay_out_layers(engine, &layout);
    engine->hidden = px_layout_take(&layout, M * (size_t)config->hidden_size, sizeof(px_real));
    if (plan->train) {
        engine->mean = px_layout_take(&layout, M, sizeof(px_real));
        engine->rstd = px_layout_take(&layout, M, sizeof(px_real));
        lay_out_gradients(engine, &layout);
    }
    lay_out_head(engine, &layout);
    return layout.used;
}

static void plan_engine(px_engine *engine, const px_model_config *config, const px_engine_plan *plan)
{
    memset(engine, 0, sizeof *engine);
    px_shape_init(&engine->shape, config);
    engine->plan = *plan;
    engine->shape.precision = plan->precision;
    if (engine->plan.threads < 1) engine->plan.threads = 1;
    engine->head_rows = head_rows(config, plan);
}

static size_t scratch_bytes(const px_engine *engine)
{
    const px_engine_plan *plan = &engine->plan;
    return px_shape_scratch(&engine->shape, plan->max_tokens, plan->max_sequence, engine->head_rows, plan->threads,
                            plan->train);
}

size_t px_engine_bytes(const px_model *model, const px_engine_plan *plan)
{
    px_engine engine;
    plan_engine(&engine, &model->config, plan);
    return sizeof engine + lay_out(&engine, NULL) + scratch_bytes(&engine);
}

px_status px_engine_create(px_engine **out, const px_model_config *config, const px_engine_plan *plan)
{
    *out = NULL;
    if (plan->max_tokens < 1 || plan->max_sequences < 1 || plan->max_sequence < 1) {
        return px_fail(PX_CONFIG, "engine plan of %d tokens, %d sequences, longest %d; valid is 1 or more of each",
                       plan->max_tokens, plan->max_sequences, plan->max_sequence);
    }
    PX_TRY(px_positions_check(config, plan->max_sequence));
    px_engine *engine = px_alloc(sizeof *engine, "engine");
    if (!engine) return px_error_code();
    plan_engine(engine, config, plan);
    engine->memory = px_alloc(lay_out(engine, NULL), "activations");
    px_status status = engine->memory ? PX_OK : px_error_code();
    if (status == PX_OK) {
        lay_out(engine, engine->memory);
        status = px_shape_tables(&engine->shape, plan->max_sequence);
    }
    if (status == PX_OK) status = px_compute_init(&engine->compute, engine->plan.threads, scratch_bytes(engine));
    engine->compute.precision = plan->precision;
    if (status != PX_OK) {
        px_engine_destroy(engine);
        return status;
    }
    *out = engine;
    return PX_OK;
}

void px_engine_destroy(px_engine *engine)
{
    if (!engine) return;
    px_compute_free(&engine->compute);
    px_free(engine->memory);
    px_free(engine);
}

bool px_engine_fits(const px_engine *engine, int sequences, int tokens)
{
    return sequences <= engine->plan.max_sequences && tokens <= engine->plan.max_tokens;
}

/* Copies the batch, and gives every sequence its span and its part of the cache. */
static void take_batch(px_engine *engine, const px_batch *batch)
{
    const px_engine_plan *plan = &engine->plan;
    const px_model_config *config = &engine->shape.config;
    PX_CHECK(batch->tokens <= plan->max_tokens && batch->sequences <= plan->max_sequences);
    PX_CHECK(batch->starts[0] == 0 && batch->starts[batch->sequences] == batch->tokens);
    size_t cached = 0;
    for (int s = 0; s < batch->sequences; s++) {
        int start = batch->starts[s], length = batch->starts[s + 1] - start;
        PX_CHECK(length >= 1 && length <= plan->max_sequence);
        px_kv kv = {.k = engine->keys + cached,
                    .v = engine->values + cached,
                    .kv_heads = config->kv_heads,
                    .D = config->head_dim,
                    .capacity = (length + PX_KEY_BLOCK - 1) / PX_KEY_BLOCK * PX_KEY_BLOCK,
                    .rounded = plan->precision == PX_BF16};
        engine->spans[s] = (px_span){.row = start, .rows = length, .position = 0, .key_row = start, .kv = kv};
        cached += px_kv_bytes(false, config->kv_heads, config->head_dim, length);
        for (int i = 0; i < length; i++) {
            int32_t id = batch->ids[start + i];
            PX_CHECK(id >= 0 && id < config->vocab_size);
            engine->ids[start + i] = id;
            engine->positions[start + i] = i;
        }
    }
    engine->tokens = batch->tokens;
    engine->sequences = batch->sequences;
}

/* Which rows go on after the last attention: all, or of each sequence those from the first to the last that is wanted. */
static void take_wanted(px_engine *engine, const px_batch *batch)
{
    px_tail *tail = &engine->tail;
    tail->first = engine->first;
    tail->span_count = tail->count = 0;
    bool all = !batch->wanted || batch->wanted_count == 0;
    for (int t = 0; t < batch->tokens; t++) engine->place[t] = all ? t : -1;
    for (int i = 0; !all && i < batch->wanted_count; i++) {
        PX_CHECK(batch->wanted[i] >= 0 && batch->wanted[i] < batch->tokens);
        engine->place[batch->wanted[i]] = 0;
    }
    for (int s = 0; s < batch->sequences; s++) {
        int begin = batch->starts[s], end = batch->starts[s + 1];
        px_span span = engine->spans[s];
        while (begin < end && engine->place[begin] < 0) begin++;
        while (end > begin && engine->place[end - 1] < 0) end--;
        if (begin == end) continue;
        span.row = tail->count;
        span.rows = end - begin;
        span.position = begin - batch->starts[s];
        engine->first[tail->span_count] = begin;
        tail->spans[tail->span_count++] = span;
        for (int t = begin; t < end; t++) engine->place[t] = tail->count++;
    }
    engine->kept = tail->count;
}

const px_tail *px_engine_tail(const px_engine *engine, int layer)
{
    bool last = layer == engine->shape.config.layers - 1;
    return last && engine->kept < engine->tokens ? &engine->tail : NULL;
}

void px_engine_blocks_forward(px_engine *engine, const px_model *model, int first, int last)
{
    for (int layer = first; layer < last; layer++) {
        px_block_forward(&engine->compute, &engine->shape, model, layer, &engine->layers[layer], engine->spans,
                         engine->sequences, engine->tokens, px_engine_tail(engine, layer));
    }
}

void px_engine_forward(px_engine *engine, const px_model *model, const px_batch *batch)
{
    take_batch(engine, batch);
    take_wanted(engine, batch);
    if (engine->shape.packed) px_packed_refresh(&engine->shape, &engine->compute, model);
    px_embed_forward(&engine->compute, model, engine->layers[0].x, engine->ids, engine->positions, engine->tokens);
    px_engine_blocks_forward(engine, model, 0, model->config.layers);
    px_norm_forward(&engine->compute, &engine->shape, engine->hidden, engine->mean, engine->rstd, engine->last,
                    NULL, model->weights + model->norm_w,
                    model->norm_b == SIZE_MAX ? NULL : model->weights + model->norm_b, engine->kept);
}

const px_real *px_engine_hidden(const px_engine *engine)
{
    return engine->hidden;
}
