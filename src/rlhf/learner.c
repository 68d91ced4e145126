#include "phalanx/dist.h"
#include "phalanx/rlhf.h"

#include <math.h>
#include <string.h>

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

static px_engine_plan engine_plan(const px_learner_config *config)
{
    return (px_engine_plan){.max_tokens = px_learner_tokens(config),
                            .max_sequences = px_learner_sequences(config),
                            .max_sequence = config->max_sequence,
                            .train = !config->frozen,
                            .recompute = config->recompute,
                            .threads = config->threads,
                            .precision = config->precision};
}

px_learner_memory px_learner_plan(const px_model *model, const px_learner_config *config)
{
    px_engine_plan plan = engine_plan(config);
    size_t block = model->block * sizeof(float);
    int depth = config->frozen ? 0 : px_work_depth(config->exact, px_dist_size());
    return (px_learner_memory){.weights = block,
                               .gradients = (size_t)depth * block,
                               .moments = config->frozen ? 0 : 2 * block,
                               .engine = px_engine_bytes(model, &plan),
                               .gradient_blocks = depth};
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
    }
    px_free(learner->m);
    px_free(learner->v);
    px_free(learner->ranges);
    px_model_free(&learner->model);
    *learner = (px_learner){0};
}

static void add_block(float *restrict to, const float *restrict from, size_t count)
{
#pragma omp parallel for simd schedule(static)
    for (size_t i = 0; i < count; i++) {
        to[i] += from[i];
    }
}

/* The partial sums that are alive become one in values [first, ...) of those not summed yet, in the order of the tree, and what
 * other ranks have is added to it: while backward goes on, from the last layer to the first. */
static void reduce_from(px_learner *learner, size_t first)
{
    for (int p = learner->alive - 1; p > 0; p--) {
        add_block(learner->partial[p - 1] + first, learner->partial[p] + first, learner->unsummed - first);
    }
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

/* One leaf in micro-batches of at most micro_tokens tokens (or one item); the cuts depend on the items alone. last: no leaf of
 * this rank comes after it. */
static px_status run_leaf(px_learner *learner, const int32_t *tokens, int64_t from, int64_t to, float *grads, bool last,
                          const px_loss *loss)
{
    memset(grads, 0, learner->model.block * sizeof *grads);
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
        PX_TRY(run_leaf(learner, tokens, work->first[leaf], work->first[leaf + 1], learner->partial[top], last, loss));
        height[top] = 0;
        for (; !last && top >= 1 && height[top] == height[top - 1]; top--) {
            add_block(learner->partial[top - 1], learner->partial[top], learner->model.block);
            height[top - 1]++;
            learner->alive--;
        }
    }
    if (learner->alive == 0) {
        memset(learner->partial[0], 0, learner->model.block * sizeof(float));
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
    PX_TRY(px_agree(status));
    if (px_fault("learner.nan")) {
        grads[0] = NAN;
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
    return PX_OK;
}

bool px_learner_in_step(const px_learner *learner)
{
    return px_same_everywhere(px_hash(learner->model.weights, learner->model.block * sizeof(float), 0));
}
