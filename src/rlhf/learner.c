#include "phalanx/dist.h"
#include "phalanx/rlhf.h"

#include <math.h>
#include <string.h>

enum { FOLD = 2048 }; /* values of partial sums that are added at once, in the first-level cache */

/* AdamW treats a run of equally decayed tensors as one range; padding between tensors is zero and stays zero. */
static px_status make_ranges(px_learner *learner)
{
    const px_model *model = &learner->model;
    learner->ranges = px_alloc_array((size_t)model->param_count, sizeof(px_range), "optimizer ranges");
    if (learner->ranges == NULL) {
        return px_error_code();
    }
    for (int p = 0; p < model->param_count; p++) {
        const px_param *param = &model->params[p];
        px_range *last = learner->range_count > 0 ? &learner->ranges[learner->range_count - 1] : NULL;
        if (!param->trainable) {
            continue;
        }
        if (last != NULL && last->decay == param->decay && param->offset >= last->offset) {
            last->count = param->offset + param->count - last->offset;
        } else {
            learner->ranges[learner->range_count++] = (px_range){param->offset, param->count, param->decay};
        }
    }
    return PX_OK;
}

/* A forward never leaves a gradient leaf, and a leaf holds at most its share of the minibatch and one item more. */
int px_learner_tokens(const px_learner_config *config)
{
    int64_t most = config->micro_tokens, leaves = px_work_leaves(config->exact, px_dist_size());
    int64_t leaf = (config->batch_tokens + leaves - 1) / leaves + config->max_item;
    if (config->batch_tokens > 0 && leaf < most) {
        most = leaf;
    }
    if (config->batch_tokens > 0 && config->batch_tokens < most) {
        most = config->batch_tokens;
    }
    return most > config->max_item ? (int)most : config->max_item;
}

int px_learner_sequences(const px_learner_config *config)
{
    enum { FEW = 8 }; /* evaluation may batch more than a small minibatch has */
    int64_t most = config->batch_sequences < FEW ? FEW : config->batch_sequences;
    int tokens = px_learner_tokens(config);
    return config->batch_sequences > 0 && most < tokens ? (int)most : tokens;
}

/* Packing is part of every product: done once for a step that has several forwards. */
static bool packs(const px_learner_config *config)
{
    bool several = config->batch_tokens / px_dist_size() >= 2 * (int64_t)px_learner_tokens(config);
    return several && !config->frozen && !config->unpacked;
}

static px_engine_plan engine_plan(const px_learner_config *config)
{
    return (px_engine_plan){.max_tokens = px_learner_tokens(config),
                            .max_sequences = px_learner_sequences(config),
                            .max_sequence = config->max_sequence,
                            .train = !config->frozen,
                            .packed = packs(config),
                            .recompute = config->recompute,
                            .threads = config->threads,
                            .precision = config->precision};
}

/* An embedding that is not the head too has a gradient in the rows of the batch alone. */
static bool keeps_rows(const px_model *model)
{
    return model->embed != model->lm_head;
}

px_learner_memory px_learner_plan(const px_model *model, const px_learner_config *config)
{
    px_engine_plan plan = engine_plan(config);
    size_t block = model->block * sizeof(float);
    int depth = config->frozen ? 0 : px_work_depth(config->exact, px_dist_size());
    size_t rows = keeps_rows(model) ? (size_t)model->config.vocab_size : 0;
    return (px_learner_memory){.weights = block,
                               .gradients = (size_t)depth * (block + rows),
                               .moments = config->frozen ? 0 : 2 * block,
                               .engine = px_engine_bytes(model, &plan),
                               .gradient_blocks = depth,
                               .packed = plan.packed};
}

px_status px_learner_create(px_learner *learner, px_model *model, const px_learner_config *config)
{
    *learner = (px_learner){.model = *model, .config = *config};
    *model = (px_model){0};
    px_engine_plan plan = engine_plan(config);
    size_t block = learner->model.block;
    if (config->frozen) {
        return px_engine_create(&learner->engine, &learner->model.config, &plan);
    }
    learner->depth = px_work_depth(config->exact, px_dist_size());
    for (int d = 0; d < learner->depth; d++) {
        learner->partial[d] = px_alloc_array(block, sizeof(float), "gradients");
        if (learner->partial[d] == NULL) {
            return px_error_code();
        }
        if (keeps_rows(&learner->model)) {
            learner->used[d] = px_alloc((size_t)learner->model.config.vocab_size, "rows of the embedding's gradient");
            if (learner->used[d] == NULL) {
                return px_error_code();
            }
        }
    }
    learner->m = px_alloc_array(block, sizeof(float), "first moments");
    learner->v = px_alloc_array(block, sizeof(float), "second moments");
    if (learner->m == NULL || learner->v == NULL) {
        return px_error_code();
    }
    PX_TRY(px_sum_f32_tree_open());
    PX_TRY(make_ranges(learner));
    return px_engine_create(&learner->engine, &learner->model.config, &plan);
}

void px_learner_free(px_learner *learner)
{
    px_engine_destroy(learner->engine);
    for (int d = 0; d < learner->depth; d++) {
        px_free(learner->partial[d]);
        px_free(learner->used[d]);
    }
    px_free(learner->m);
    px_free(learner->v);
    px_free(learner->ranges);
    px_model_free(&learner->model);
    *learner = (px_learner){0};
}

/* Values [at, at + count) of partial sum `low` become low + (low+1 + (... + high)). */
static void fold_values(px_learner *learner, int low, int high, size_t at, size_t count)
{
    float sum[FOLD];
    memcpy(sum, learner->partial[high] + at, count * sizeof *sum);
    for (int p = high - 1; p > low; p--) {
        const float *more = learner->partial[p] + at;
        for (size_t i = 0; i < count; i++) {
            sum[i] += more[i];
        }
    }
    float *to = learner->partial[low] + at;
    for (size_t i = 0; i < count; i++) {
        to[i] += sum[i];
    }
}

static void fold_range(px_learner *learner, int low, int high, size_t begin, size_t end)
{
#pragma omp parallel for schedule(static)
    for (size_t at = begin; at < end; at += FOLD) {
        fold_values(learner, low, high, at, end - at < FOLD ? end - at : FOLD);
    }
}

/* Rows that are 0 in all but partial sum `low` are left. */
static void fold_embedding(px_learner *learner, int low, int high)
{
    const px_model *model = &learner->model;
    size_t row = (size_t)model->config.hidden_size;
#pragma omp parallel for schedule(static)
    for (int v = 0; v < model->config.vocab_size; v++) {
        bool used = false;
        for (int p = low + 1; p <= high; p++) {
            used = used || learner->used[p][v] != 0;
        }
        for (size_t at = 0; used && at < row; at += FOLD) {
            fold_values(learner, low, high, model->embed + (size_t)v * row + at, row - at < FOLD ? row - at : FOLD);
        }
        learner->used[low][v] = learner->used[low][v] || used;
    }
}

/* Partial sums low .. high become one in `low`, in values [begin, end), which hold all of the embedding or none. */
static void fold(px_learner *learner, int low, int high, size_t begin, size_t end)
{
    const px_model *model = &learner->model;
    size_t embed = model->embed, behind = embed + (size_t)model->config.vocab_size * (size_t)model->config.hidden_size;
    if (high <= low) {
        return;
    }
    if (learner->used[0] != NULL && begin <= embed && behind <= end) {
        fold_range(learner, low, high, begin, embed);
        fold_embedding(learner, low, high);
        begin = behind;
    }
    fold_range(learner, low, high, begin, end);
}

/* The partial sums that are alive become one in values [first, ...) of those not summed yet, in the order of the tree, and what
 * other ranks have is added to it: while backward goes on, from the last layer to the first. */
static void reduce_from(px_learner *learner, size_t first)
{
    fold(learner, 0, learner->alive - 1, first, learner->unsummed);
    learner->unsummed = first;
    px_sum_f32_tree_ready(first);
}

static void on_ready(void *arg, size_t offset, size_t count)
{
    px_learner *learner = arg;
    PX_CHECK(offset + count == learner->unsummed);
    reduce_from(learner, offset);
}

void px_learner_backward(px_learner *learner, float *grads)
{
    px_engine_backward(learner->engine, &learner->model, grads, learner->last ? on_ready : NULL, learner);
}

static void clear_partial(px_learner *learner, int p)
{
    memset(learner->partial[p], 0, learner->model.block * sizeof(float));
    if (learner->used[p] != NULL) {
        memset(learner->used[p], 0, (size_t)learner->model.config.vocab_size);
    }
}

/* One leaf in micro-batches of at most micro_tokens tokens (or one item); the cuts depend on the items alone. last: no leaf of
 * this rank comes after it. */
static px_status run_leaf(px_learner *learner, const int32_t *tokens, int64_t from, int64_t to, int top, bool last,
                          const px_loss *loss)
{
    float *grads = learner->partial[top];
    if (from == to) {
        clear_partial(learner, top);
    }
    px_engine_fresh(learner->engine, learner->used[top]);
    while (from < to) {
        px_poll();
        if (px_stop_level() > 0) {
            return PX_STOPPED;
        }
        int64_t end = from + 1, sum = tokens[from];
        while (end < to && sum + tokens[end] <= learner->config.micro_tokens) {
            sum += tokens[end++];
        }
        learner->last = last && end == to;
        loss->run(loss->self, learner, grads, from, end - from);
        from = end;
    }
    return PX_OK;
}

/* Binary-counter summation: two partial sums of the same height are added at once, so that at most log2(leaves) + 1
 * blocks are alive and the order of additions is that of a balanced tree. Those that are left at the last leaf are added
 * range by range, as its backward finishes them. */
static px_status run_leaves(px_learner *learner, const px_work *work, const int32_t *tokens, const px_loss *loss)
{
    int height[PX_MAX_DEPTH];
    learner->alive = 0;
    learner->unsummed = learner->model.block;
    learner->last = false;
    for (int l = 0; l < work->mine_count; l++) {
        int leaf = work->mine + l, top = learner->alive++;
        bool last = l == work->mine_count - 1;
        PX_CHECK(top < learner->depth);
        PX_TRY(run_leaf(learner, tokens, work->first[leaf], work->first[leaf + 1], top, last, loss));
        int low = top;
        height[top] = 0;
        while (!last && low >= 1 && height[low] == height[low - 1]) {
            height[--low]++;
        }
        fold(learner, low, top, 0, learner->model.block);
        learner->alive = low + 1;
    }
    if (learner->alive == 0) {
        clear_partial(learner, 0);
    }
    reduce_from(learner, 0); /* a last leaf without items has no backward */
    return PX_OK;
}

px_status px_learner_step(px_learner *learner, const px_work *work, const int32_t *tokens, const px_loss *loss,
                          px_step *step)
{
    float *grads = learner->partial[0];
    px_sum_f32_tree_begin(grads, learner->model.block);
    px_status status = run_leaves(learner, work, tokens, loss);
    px_sum_f32_tree_end(); /* also after a stop: the others may be in it already */
    if (learner->used[0] != NULL && px_dist_size() > 1) { /* the others' rows are in the sum */
        memset(learner->used[0], 1, (size_t)learner->model.config.vocab_size);
    }
    PX_TRY(px_agree(status));
    if (px_fault("learner.nan")) {
        grads[learner->model.norm_w] = NAN;
    }
    const px_learner_config *config = &learner->config;
    double norm = sqrt(px_sum_squares(grads, learner->model.block));
    double bad = isfinite(norm) ? 0.0 : 1.0;
    px_max_f64(&bad, 1);
    *step = (px_step){.grad_norm = norm,
                      .lr = config->lr * px_schedule_at(&config->schedule, learner->steps),
                      .skipped = bad > 0.0};
    if (step->skipped) {
        return PX_OK;
    }
    learner->steps++;
    px_adamw_step(&config->adam, learner->model.weights, grads, learner->m, learner->v, learner->ranges,
                  learner->range_count, step->lr, px_clip_scale(norm, config->grad_clip), learner->steps);
    learner->model.version++;
    if (px_fault("learner.astray")) {
        learner->model.weights[learner->model.norm_w] += 1.0f;
    }
    return PX_OK;
}

bool px_learner_in_step(const px_learner *learner)
{
    return px_same_everywhere(px_hash(learner->model.weights, learner->model.block * sizeof(float), 0));
}
