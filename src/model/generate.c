/* Continuous batching: every slot is a sequence with its own keys and values. A step feeds all live slots in one batch:
 * those that decode their last token, those that are new as much of their prompts as there is room for; a slot whose
 * last token has gone through gets its next one; a slot that finishes takes the next sample of the queue at once.
 *
 * A prompt goes through once. The cache of all of it but the last token is handed to its other samples by a copy, and
 * each feeds the last token itself; a slot that held the prompt before needs nothing at all. */
#include <omp.h>
#include <string.h>

#include "block.h"

#define LOGITS_BYTES ((size_t)64 << 20)
#define HEAD_ROWS_MIN 16

typedef struct slot {
    const px_request *request; /* whose prompt the cache holds; NULL: none */
    uint32_t sample;
    int completion;
    int length; /* tokens of prompt and completion so far */
    int cached; /* tokens whose keys and values are there */
    int copy_from; /* slot through which the same prompt is going; -1: none */
    bool live;
} slot;

typedef struct queue { /* next sample to start */
    const px_request *requests;
    int count, request, sample, completion;
    px_completion *completions;
} queue;

struct px_generator {
    px_shape shape;
    px_generator_plan plan;
    px_compute compute;
    void *memory; /* everything below */
    slot *slots;
    int32_t *history;       /* [max_slots, max_length] */
    char *keys, *values;    /* [max_slots, L, layer_bytes] */
    size_t layer_bytes;     /* of the keys (and of the values) of max_length tokens */

    int rows; /* largest batch */
    int32_t *ids, *positions;
    px_span *spans; /* [max_slots] */
    int *ending;    /* [max_slots] slots that get a token in this step, */
    int *last_row;  /* and the batch's row of their last token */
    px_activations activations;
    px_real *hidden; /* [max_slots, C] of the last rows */

    int head_rows;
    px_real *logits;     /* [head_rows, V] */
    double *weights;     /* [threads, V] */
    int32_t *chosen;     /* [max_slots] */
    px_row_stats *stats; /* [max_slots] */
    px_generator_stats last;
    bool used;
};

/* ---- memory ------------------------------------------------------------------------------------------------------ */
static bool bf16(const px_generator *g) { return g->plan.precision == PX_BF16; }

static int head_rows(const px_model_config *config, const px_generator_plan *plan)
{
    size_t rows = LOGITS_BYTES / ((size_t)config->vocab_size * sizeof(px_real));
    if (rows < HEAD_ROWS_MIN) rows = HEAD_ROWS_MIN;
    return rows < (size_t)plan->max_slots ? (int)rows : plan->max_slots;
}

static void lay_out_activations(px_generator *g, px_layout *layout)
{
    const px_shape *shape = &g->shape;
    px_activations *a = &g->activations;
    size_t M = (size_t)g->rows, C = (size_t)shape->config.hidden_size, real = sizeof(px_real);
    size_t mlp = (size_t)(g->rows < shape->mlp_rows ? g->rows : shape->mlp_rows);
    a->x = a->out = px_layout_take(layout, M * C, real);
    a->norm = px_layout_take(layout, M * C, real);
    a->qkv = px_layout_take(layout, M * (size_t)shape->qkv, real);
    a->attention = px_layout_take(layout, M * (size_t)shape->q, real);
    a->mid = px_layout_take(layout, M * C, real);
    a->up = px_layout_take(layout, mlp * (size_t)shape->up, real);
    a->act = px_layout_take(layout, mlp * (size_t)shape->config.intermediate_size, real);
}

static size_t lay_out(px_generator *g, char *base)
{
    px_layout layout = {.base = base};
    const px_model_config *config = &g->shape.config;
    size_t slots = (size_t)g->plan.max_slots, V = (size_t)config->vocab_size;
    size_t cache = slots * (size_t)config->layers * g->layer_bytes;
    g->slots = px_layout_take(&layout, slots, sizeof(slot));
    g->history = px_layout_take(&layout, slots * (size_t)g->plan.max_length, sizeof(int32_t));
    g->keys = px_layout_take(&layout, cache, 1);
    g->values = px_layout_take(&layout, cache, 1);
    g->ids = px_layout_take(&layout, (size_t)g->rows, sizeof(int32_t));
    g->positions = px_layout_take(&layout, (size_t)g->rows, sizeof(int32_t));
    g->spans = px_layout_take(&layout, slots, sizeof(px_span));
    g->ending = px_layout_take(&layout, slots, sizeof(int));
    g->last_row = px_layout_take(&layout, slots, sizeof(int));
    px_shape_layout(&g->shape, &layout, g->plan.max_length);
    px_packed_layout(&g->shape, &layout, false);
    lay_out_activations(g, &layout);
    g->hidden = px_layout_take(&layout, slots * (size_t)config->hidden_size, sizeof(px_real));
    g->logits = px_layout_take(&layout, (size_t)g->head_rows * V, sizeof(px_real));
    g->weights = px_layout_take(&layout, (size_t)g->plan.threads * V, sizeof(double));
    g->chosen = px_layout_take(&layout, slots, sizeof(int32_t));
    g->stats = px_layout_take(&layout, slots, sizeof(px_row_stats));
    return layout.used;
}

static void plan_generator(px_generator *g, const px_model_config *config, const px_generator_plan *plan)
{
    memset(g, 0, sizeof *g);
    px_shape_init(&g->shape, config);
    g->plan = *plan;
    g->shape.precision = plan->precision;
    if (g->plan.threads < 1) g->plan.threads = 1;
    g->rows = plan->max_slots > plan->max_prefill ? plan->max_slots : plan->max_prefill;
    g->head_rows = head_rows(config, plan);
    g->layer_bytes = px_kv_bytes(bf16(g), config->kv_heads, config->head_dim, plan->max_length);
}

static size_t scratch_bytes(const px_generator *g)
{
    return px_shape_scratch(&g->shape, g->rows, g->plan.max_length, g->head_rows, g->plan.threads, false);
}

size_t px_generator_bytes(const px_model *model, const px_generator_plan *plan)
{
    px_generator g;
    plan_generator(&g, &model->config, plan);
    return sizeof g + lay_out(&g, NULL) + scratch_bytes(&g);
}

px_status px_generator_create(px_generator **out, const px_model_config *config, const px_generator_plan *plan)
{
    *out = NULL;
    if (config->head != PX_HEAD_LM) return px_fail(PX_CONFIG, "generation needs a model with an LM head");
    if (plan->max_slots < 1 || plan->max_length < 1 || plan->max_prefill < 1) {
        return px_fail(PX_CONFIG, "generator plan of %d slots, length %d, prefill %d; valid is 1 or more of each",
                       plan->max_slots, plan->max_length, plan->max_prefill);
    }
    PX_TRY(px_positions_check(config, plan->max_length));
    px_generator *g = px_alloc(sizeof *g, "generator");
    if (!g) return px_error_code();
    plan_generator(g, config, plan);
    g->memory = px_alloc(lay_out(g, NULL), "generator's cache and activations");
    px_status status = g->memory ? PX_OK : px_error_code();
    if (status == PX_OK) {
        lay_out(g, g->memory);
        status = px_shape_tables(&g->shape, plan->max_length);
    }
    if (status == PX_OK) status = px_compute_init(&g->compute, g->plan.threads, scratch_bytes(g));
    g->compute.precision = plan->precision;
    if (status != PX_OK) {
        px_generator_destroy(g);
        return status;
    }
    *out = g;
    return PX_OK;
}

void px_generator_destroy(px_generator *g)
{
    if (!g) return;
    px_compute_free(&g->compute);
    px_free(g->memory);
    px_free(g);
}

/* ---- cache ------------------------------------------------------------------------------------------------------- */
static size_t slot_offset(const px_generator *g, int index)
{
    return (size_t)index * (size_t)g->shape.config.layers * g->layer_bytes;
}

static px_kv slot_kv(const px_generator *g, int index)
{
    const px_model_config *config = &g->shape.config;
    return (px_kv){.k = g->keys + slot_offset(g, index),
                   .v = g->values + slot_offset(g, index),
                   .kv_heads = config->kv_heads,
                   .D = config->head_dim,
                   .capacity = (g->plan.max_length + PX_KEY_BLOCK - 1) / PX_KEY_BLOCK * PX_KEY_BLOCK,
                   .rounded = bf16(g),
                   .halves = bf16(g)};
}

/* The first `tokens` tokens of all layers, in whole key blocks. */
static void copy_cache(px_generator *g, int to, int from, int tokens)
{
    const px_model_config *config = &g->shape.config;
    int parts = config->layers * config->kv_heads; /* contiguous runs of one head in one layer */
    size_t part = g->layer_bytes / (size_t)config->kv_heads, bytes = px_kv_bytes(bf16(g), 1, config->head_dim, tokens);
#pragma omp parallel for num_threads(g->plan.threads) schedule(static)
    for (int i = 0; i < parts; i++) {
        size_t t = slot_offset(g, to) + (size_t)i * part, f = slot_offset(g, from) + (size_t)i * part;
        memcpy(g->keys + t, g->keys + f, bytes);
        memcpy(g->values + t, g->values + f, bytes);
    }
}

/* Rows g->ids at g->positions through all blocks, with the spans of layer 0. */
static void forward_rows(px_generator *g, const px_model *model, int span_count, int M)
{
    px_embed_forward(&g->compute, model, g->activations.x, g->ids, g->positions, M);
    for (int layer = 0; layer < g->shape.config.layers; layer++) {
        px_block_forward(&g->compute, &g->shape, model, layer, &g->activations, g->spans, span_count, M, NULL);
        for (int s = 0; s < span_count; s++) {
            g->spans[s].kv.k = (char *)g->spans[s].kv.k + g->layer_bytes;
            g->spans[s].kv.v = (char *)g->spans[s].kv.v + g->layer_bytes;
        }
    }
}

typedef struct batch {
    int spans, rows, ending;
} batch;

/* Appends the next `count` uncached tokens of a slot as a span. */
static void add_span(px_generator *g, int index, int count, batch *b)
{
    slot *s = &g->slots[index];
    const int32_t *history = g->history + (size_t)index * (size_t)g->plan.max_length;
    g->spans[b->spans++] = (px_span){.row = b->rows, .rows = count, .position = s->cached, .kv = slot_kv(g, index)};
    for (int i = 0; i < count; i++) {
        g->ids[b->rows + i] = history[s->cached + i];
        g->positions[b->rows + i] = s->cached + i;
    }
    b->rows += count;
    s->cached += count;
    if (s->cached < s->length) return;
    g->ending[b->ending] = index;
    g->last_row[b->ending++] = b->rows - 1;
}

/* ---- queue ------------------------------------------------------------------------------------------------------- */
static bool queue_empty(const queue *q)
{
    return q->request >= q->count;
}

static void skip_empty(queue *q)
{
    while (q->request < q->count && q->sample >= q->requests[q->request].samples) {
        q->request++;
        q->sample = 0;
    }
}

/* Gives a free slot the next sample; the prompt's cache is its own, a copy, a copy to come, or to be made. While samples
 * of a request wait, no slot that holds its prompt has gone to a later request. */
static void assign(px_generator *g, int index, queue *q)
{
    slot *s = &g->slots[index];
    const px_request *request = &q->requests[q->request];
    int prefix = request->prompt_length - 1, holder = -1;
    for (int i = 0; i < g->plan.max_slots && holder != index; i++) {
        if (g->slots[i].request == request && (g->slots[i].copy_from < 0 || i == index)) {
            if (holder < 0 || i == index) holder = i;
        }
    }
    s->copy_from = -1;
    s->cached = 0;
    if (holder == index) {
        s->cached = prefix;
    } else if (holder >= 0 && g->slots[holder].cached >= prefix) {
        copy_cache(g, index, holder, prefix);
        s->cached = prefix;
    } else if (holder >= 0) {
        s->copy_from = holder;
    }
    s->request = request;
    s->sample = request->first_sample + (uint32_t)q->sample;
    s->completion = q->completion;
    q->completions[q->completion].length = 0;
    q->completions[q->completion].finish = PX_FINISH_LENGTH;
    s->length = request->prompt_length;
    s->live = true;
    memcpy(g->history + (size_t)index * (size_t)g->plan.max_length, request->prompt,
           (size_t)request->prompt_length * sizeof(int32_t));
    q->sample++;
    q->completion++;
    skip_empty(q);
}

static void refill(px_generator *g, queue *q)
{
    for (int i = 0; i < g->plan.max_slots && !queue_empty(q); i++) {
        if (!g->slots[i].live) assign(g, i, q);
    }
}

/* Slots that wait for a prompt which has gone through meanwhile. */
static void copy_prompts(px_generator *g)
{
    for (int i = 0; i < g->plan.max_slots; i++) {
        slot *s = &g->slots[i];
        if (!s->live || s->copy_from < 0 || g->slots[s->copy_from].cached < s->length - 1) continue;
        copy_cache(g, i, s->copy_from, s->length - 1);
        s->cached = s->length - 1;
        s->copy_from = -1;
    }
}

/* ---- step -------------------------------------------------------------------------------------------------------- */
/* Tokens for the ending slots first .. first + count - 1, whose logits are there. */
static void choose_rows(px_generator *g, const px_sampling *sampling, int first, int count)
{
    int V = g->shape.config.vocab_size;
#pragma omp parallel for num_threads(g->plan.threads) schedule(dynamic, 1) if (count > 1)
    for (int i = 0; i < count; i++) {
        int index = g->ending[first + i];
        const slot *s = &g->slots[index];
        int generated = s->length - s->request->prompt_length;
        double uniform = px_rng_uniform(&sampling->rng, sampling->iteration, s->request->slot, s->sample,
                                        (uint32_t)generated);
        g->chosen[first + i] =
            px_sample_token(g->stats + first + i, g->logits + (size_t)i * (size_t)V, V, sampling,
                            g->history + (size_t)index * (size_t)g->plan.max_length, s->length, generated, uniform,
                            g->weights + (size_t)omp_get_thread_num() * (size_t)V);
    }
}

static bool is_stop(const px_sampling *sampling, int32_t id)
{
    for (int i = 0; i < sampling->stop_count; i++) {
        if (sampling->stop_ids[i] == id) return true;
    }
    return false;
}

static void append(px_generator *g, const px_sampling *sampling, int at, px_completion *completions,
                   const px_feed *feed)
{
    int index = g->ending[at];
    slot *s = &g->slots[index];
    px_completion *c = &completions[s->completion];
    int32_t id = g->chosen[at];
    c->ids[c->length] = id;
    c->logprobs[c->length] = (float)g->stats[at].logprob;
    c->length++;
    bool stop = is_stop(sampling, id);
    if (feed->on_token && feed->on_token(feed->arg, s->completion, c)) stop = true;
    c->finish = stop ? PX_FINISH_STOP : PX_FINISH_LENGTH;
    if (stop || c->length >= sampling->max_new_tokens) {
        s->live = false;
        if (feed->done) feed->done(feed->arg, s->completion);
        return;
    }
    g->history[(size_t)index * (size_t)g->plan.max_length + (size_t)s->length] = id;
    s->length++;
}

/* Who decodes comes first: a long prompt holds nobody up. */
static batch fill_batch(px_generator *g)
{
    batch b = {0};
    for (int i = 0; i < g->plan.max_slots; i++) {
        const slot *s = &g->slots[i];
        if (s->live && s->copy_from < 0 && s->length - s->cached == 1) add_span(g, i, 1, &b);
    }
    for (int i = 0; i < g->plan.max_slots && b.rows < g->rows; i++) {
        const slot *s = &g->slots[i];
        int left = s->length - s->cached, room = g->rows - b.rows;
        if (s->live && s->copy_from < 0 && left > 0) add_span(g, i, left < room ? left : room, &b);
    }
    return b;
}

static void choose_tokens(px_generator *g, const px_model *model, const px_sampling *sampling, int ending)
{
    size_t C = (size_t)g->shape.config.hidden_size;
    for (int i = 0; i < ending; i++) {
        memcpy(g->hidden + (size_t)i * C, g->activations.out + (size_t)g->last_row[i] * C, C * sizeof *g->hidden);
    }
    px_real *normed = g->activations.norm;
    px_norm_forward(&g->compute, &g->shape, normed, NULL, NULL, g->hidden, NULL, model->weights + model->norm_w,
                    model->norm_b == SIZE_MAX ? NULL : model->weights + model->norm_b, ending);
    for (int first = 0; first < ending; first += g->head_rows) {
        int count = ending - first < g->head_rows ? ending - first : g->head_rows;
        px_head_logits(&g->compute, &g->shape, model, g->logits, normed + (size_t)first * C, count);
        choose_rows(g, sampling, first, count);
    }
}

/* False when no slot is live. */
static bool step(px_generator *g, const px_model *model, const px_sampling *sampling, px_completion *completions,
                 const px_feed *feed)
{
    double start = px_now();
    batch b = fill_batch(g);
    if (b.rows == 0) return false;
    /* The first tokens ever come sooner from weights as they are, bit for bit the same, than after packing all. */
    if (g->used) px_packed_refresh(&g->shape, &g->compute, model);
    g->used = true;
    forward_rows(g, model, b.spans, b.rows);
    copy_prompts(g);
    choose_tokens(g, model, sampling, b.ending);
    for (int i = 0; i < b.ending; i++) append(g, sampling, i, completions, feed);
    g->last.prefill_tokens += b.rows - b.ending;
    g->last.decode_tokens += b.ending;
    if (b.rows > b.ending) {
        g->last.prefill_s += px_now() - start;
    } else {
        g->last.decode_s += px_now() - start;
        g->last.decode_steps++;
    }
    return true;
}

static px_status check_requests(const px_generator *g, const px_sampling *sampling, const px_request *requests,
                                int first, int count)
{
    int V = g->shape.config.vocab_size;
    for (int r = first; r < count; r++) {
        int length = requests[r].prompt_length;
        if (length < 1 || length > g->plan.max_length - sampling->max_new_tokens) {
            return px_fail(PX_DATA, "prompt %d has %d tokens; valid is 1 to %d (length %d less %d new tokens)", r,
                           length, g->plan.max_length - sampling->max_new_tokens, g->plan.max_length,
                           sampling->max_new_tokens);
        }
        for (int i = 0; i < length; i++) {
            int32_t id = requests[r].prompt[i];
            if (id < 0 || id >= V) {
                return px_fail(PX_DATA, "prompt %d: id %d at token %d; valid is 0 to %d", r, id, i, V - 1);
            }
        }
    }
    return PX_OK;
}

/* Takes what has come in since the last step. */
static px_status extend(const px_generator *g, const px_sampling *sampling, queue *q, const px_feed *feed)
{
    int count = feed->step ? feed->step(feed->arg) : q->count;
    if (count < 0 || px_stop_level() > 0) return px_fail(PX_STOPPED, "stopped while generating");
    if (count == q->count) return PX_OK;
    PX_TRY(check_requests(g, sampling, q->requests, q->count, count));
    q->count = count;
    skip_empty(q);
    return PX_OK;
}

px_status px_generator_feed(px_generator *g, const px_model *model, const px_sampling *sampling,
                              const px_request *requests, int count, px_completion *completions,
                              const px_feed *feed)
{
    PX_TRY(check_requests(g, sampling, requests, 0, count));
    memset(&g->last, 0, sizeof g->last);
    memset(g->slots, 0, (size_t)g->plan.max_slots * sizeof(slot));
    for (int i = 0; i < g->plan.max_slots; i++) g->slots[i].copy_from = -1;
    queue q = {.requests = requests, .count = count, .completions = completions};
    skip_empty(&q);
    for (bool more = true; more;) {
        PX_TRY(extend(g, sampling, &q, feed));
        refill(g, &q);
        more = step(g, model, sampling, completions, feed);
    }
    return PX_OK;
}

px_status px_generator_run(px_generator *g, const px_model *model, const px_sampling *sampling,
                           const px_request *requests, int count, px_completion *completions, px_on_token on_token,
                           void *arg)
{
    if (sampling->max_new_tokens < 1) {
        PX_TRY(check_requests(g, sampling, requests, 0, count));
        for (int r = 0, i = 0; r < count; r++) {
            for (int sample = 0; sample < requests[r].samples; sample++, i++) {
                completions[i].length = 0;
                completions[i].finish = PX_FINISH_LENGTH;
            }
        }
        return PX_OK;
    }
    const px_feed feed = {.on_token = on_token, .arg = arg};
    return px_generator_feed(g, model, sampling, requests, count, completions, &feed);
}

void px_generator_last(const px_generator *g, px_generator_stats *stats)
{
    *stats = g->last;
}
