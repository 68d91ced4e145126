/* One transformer block, forward: pre-norm attention and MLP with residuals, on rows of a ragged batch. */
#include <math.h>
#include <string.h>

#include "block.h"

#define ALIGN_BYTES 64

void *px_layout_take(px_layout *layout, size_t count, size_t size)
{
    char *at = layout->base ? layout->base + layout->used : NULL;
    layout->used += (count * size + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    return at;
}

void px_shape_init(px_shape *shape, const px_model_config *config)
{
    memset(shape, 0, sizeof *shape);
    shape->config = *config;
    shape->traits = px_family_traits(config->family);
    shape->q = config->heads * config->head_dim;
    shape->kv = config->kv_heads * config->head_dim;
    shape->qkv = shape->q + 2 * shape->kv;
    shape->up = config->intermediate_size * (shape->traits.gated ? 2 : 1);
    shape->mlp_rows = 1024;
}

px_status px_positions_check(const px_model_config *config, int length)
{
    if (px_family_traits(config->family).learned_positions && length > config->max_positions) {
        return px_fail(PX_CONFIG, "sequences of %d tokens; the model has positions for at most %d", length,
                       config->max_positions);
    }
    return PX_OK;
}

static bool is_rotary(const px_shape *shape)
{
    return !shape->traits.learned_positions && shape->config.rope.type != PX_ROPE_NONE;
}

void px_shape_layout(px_shape *shape, px_layout *layout, int positions)
{
    if (!is_rotary(shape)) return;
    size_t count = (size_t)positions * (size_t)(shape->config.rope.rotary_dim / 2);
    shape->rotary.cosine = px_layout_take(layout, count, sizeof(px_real));
    shape->rotary.sine = px_layout_take(layout, count, sizeof(px_real));
    shape->rotary.dim = shape->config.rope.rotary_dim;
}

px_status px_shape_tables(px_shape *shape, int positions)
{
    if (!is_rotary(shape)) return PX_OK;
    const px_rope *rope = &shape->config.rope;
    double *frequency = px_alloc_array((size_t)rope->rotary_dim, sizeof *frequency, "rotary frequencies");
    if (!frequency) return px_error_code();
    double magnitude;
    px_rope_frequencies(rope, frequency, &magnitude);
    px_rope_table(shape->rotary.cosine, shape->rotary.sine, frequency, positions, rope->rotary_dim, magnitude);
    px_free(frequency);
    return PX_OK;
}

px_heads px_shape_heads(const px_shape *shape, px_real *qkv)
{
    return (px_heads){qkv, qkv + shape->q, qkv + shape->q + shape->kv, (size_t)shape->qkv, shape->config.heads};
}

static size_t at_least(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t px_shape_scratch(const px_shape *shape, int M, int max_sequence, int head_rows, int threads, bool train)
{
    const px_model_config *config = &shape->config;
    int C = config->hidden_size, I = config->intermediate_size;
    int mlp_rows = !train && M > shape->mlp_rows ? shape->mlp_rows : M;
    size_t bytes = px_attention_scratch(M, max_sequence, config->heads, config->kv_heads, config->head_dim, threads);
    bytes = at_least(bytes, px_linear_scratch(M, shape->qkv, C, threads));
    bytes = at_least(bytes, px_linear_scratch(M, C, shape->q, threads));
    bytes = at_least(bytes, px_linear_scratch(mlp_rows, shape->up, C, threads));
    bytes = at_least(bytes, px_linear_scratch(mlp_rows, C, I, threads));
    if (config->head == PX_HEAD_LM) {
        bytes = at_least(bytes, px_linear_scratch(head_rows, config->vocab_size, C, threads));
    }
    return bytes;
}

static const px_real *tensor(const px_model *model, size_t offset)
{
    return offset == SIZE_MAX ? NULL : model->weights + offset;
}

static double embedding_scale(const px_model *model)
{
    return px_family_traits(model->config.family).scaled_embedding ? sqrt(model->config.hidden_size) : 1;
}

void px_embed_forward(px_compute *compute, const px_model *model, px_real *x, const int32_t *ids,
                      const int32_t *positions, int M)
{
    px_embedding_forward(compute, x, ids, model->weights + model->embed, model->bf16 ? model->bf16->embed.piece[0] : NULL,
                         positions, tensor(model, model->position), px_family_traits(model->config.family).position_offset, M,
                         model->config.hidden_size, embedding_scale(model));
}

void px_embed_backward(px_compute *compute, const px_model *model, px_real *grads, const int32_t *ids,
                       const int32_t *positions, const px_real *dx, int M)
{
    px_embedding_backward(compute, grads + model->embed, ids,
                          model->position == SIZE_MAX ? NULL : grads + model->position, positions,
                          px_family_traits(model->config.family).position_offset, dx, M, model->config.hidden_size,
                          embedding_scale(model));
}

void px_norm_forward(px_compute *compute, const px_shape *shape, px_real *y, px_real *mean, px_real *rstd, px_real *x,
                     const px_real *residual, const px_real *w, const px_real *b, int M)
{
    const px_model_config *config = &shape->config;
    if (shape->traits.layernorm) {
        px_layernorm_forward(compute, y, mean, rstd, x, residual, w, b, M, config->hidden_size, config->norm_eps);
    } else {
        px_rmsnorm_forward(compute, y, rstd, x, residual, w, M, config->hidden_size, config->norm_eps,
                           shape->traits.norm_offset);
    }
}

/* In place, each head of q and k by itself; training keeps what they were. */
static void norm_heads(px_compute *compute, const px_shape *shape, const px_model *model, const px_layer_view *view,
                       const px_activations *a, int M)
{
    const px_model_config *c = &shape->config;
    int D = c->head_dim, all = c->heads + c->kv_heads, width = shape->q + shape->kv;
    for (size_t m = 0; a->qk && m < (size_t)M; m++) {
        memcpy(a->qk + m * (size_t)width, a->qkv + m * (size_t)shape->qkv, (size_t)width * sizeof(px_real));
    }
    px_real *k_rstd = a->qk_rstd ? a->qk_rstd + c->heads : NULL, *k = a->qkv + shape->q;
    px_rmsnorm_heads(compute, a->qkv, shape->qkv, a->qk_rstd, all, model->weights + view->q_norm_w, M, c->heads, D,
                     c->norm_eps, shape->traits.norm_offset);
    px_rmsnorm_heads(compute, k, shape->qkv, k_rstd, all, model->weights + view->k_norm_w, M, c->kv_heads, D,
                     c->norm_eps, shape->traits.norm_offset);
}

void px_tail_gather(const px_tail *tail, px_real *to, const px_real *from, size_t ld, size_t width)
{
    for (int s = 0; s < tail->span_count; s++) {
        for (int r = 0; r < tail->spans[s].rows; r++) {
            memmove(to + (size_t)(tail->spans[s].row + r) * ld, from + (size_t)(tail->first[s] + r) * ld, width * sizeof *to);
        }
    }
}

void px_tail_scatter(const px_tail *tail, px_real *rows, size_t ld, size_t width, int M)
{
    int next = M; /* rows from here on are done */
    for (int s = tail->span_count - 1; s >= 0; s--) {
        int count = tail->spans[s].rows, first = tail->first[s];
        for (int r = first + count; r < next; r++) memset(rows + (size_t)r * ld, 0, width * sizeof *rows);
        for (int r = count - 1; r >= 0; r--) {
            memmove(rows + (size_t)(first + r) * ld, rows + (size_t)(tail->spans[s].row + r) * ld, width * sizeof *rows);
        }
        next = first;
    }
    for (int r = 0; r < next; r++) memset(rows + (size_t)r * ld, 0, width * sizeof *rows);
}

/* mid += x, of the rows that went on, where the norm of mid does not do it on its way */
static void add_input(px_compute *compute, const px_shape *shape, const px_activations *a, const px_tail *tail, int M)
{
    size_t C = (size_t)shape->config.hidden_size;
    if (!tail && shape->config.parallel_residual) px_add(compute, a->mid, a->x, (size_t)M * C);
    for (int s = 0; tail && s < tail->span_count; s++) {
        const px_span *span = &tail->spans[s];
        px_add(compute, a->mid + (size_t)span->row * C, a->x + (size_t)tail->first[s] * C, (size_t)span->rows * C);
    }
}

/* Returns how many rows go on. */
static int attention_branch(px_compute *compute, const px_shape *shape, const px_model *model,
                            int layer, const px_activations *a, const px_span *spans, int span_count, int M,
                            const px_tail *tail)
{
    const px_layer_view *view = &model->layers[layer];
    const px_model_config *config = &shape->config;
    int C = config->hidden_size;
    px_norm_forward(compute, shape, a->norm, a->mean1, a->rstd1, a->x, NULL, tensor(model, view->norm1_w),
                    tensor(model, view->norm1_b), M);
    px_weight qkv = px_shape_weight(shape, model, layer, PX_QKV);
    px_linear_forward(compute, a->qkv, shape->qkv, a->norm, C, &qkv, tensor(model, view->qkv_b), M);
    if (shape->traits.head_norm) norm_heads(compute, shape, model, view, a, M);
    const px_heads rows = px_shape_heads(shape, a->qkv);
    if (tail) { /* keys and values are those of all rows */
        px_kv_store(compute, spans, span_count, &rows, &shape->rotary);
        px_tail_gather(tail, a->qkv, a->qkv, (size_t)shape->qkv, (size_t)shape->q);
        spans = tail->spans;
        span_count = tail->span_count;
        M = tail->count;
    }
    px_attention_forward(compute, a->attention, shape->q, a->lse, &rows, tail ? NULL : &shape->rotary, spans, span_count,
                         1 / sqrt(config->head_dim), config->window);
    px_weight out = px_shape_weight(shape, model, layer, PX_OUT);
    px_linear_forward(compute, a->mid, C, a->attention, shape->q, &out, tensor(model, view->out_b), M);
    add_input(compute, shape, a, tail, M);
    return M;
}

/* Rows of the MLP depend on nothing but themselves: chunks of them pass through all of it while they are in cache. */
static void mlp_branch(px_compute *compute, const px_shape *shape, const px_model *model, int layer,
                       const px_activations *a, int M, const px_tail *tail)
{
    const px_layer_view *view = &model->layers[layer];
    const px_model_config *config = &shape->config;
    int C = config->hidden_size, I = config->intermediate_size;
    px_weight first = px_shape_weight(shape, model, layer, PX_UP);
    px_weight second = px_shape_weight(shape, model, layer, PX_DOWN);
    px_real *input = config->parallel_residual ? a->x : a->mid;
    const px_real *residual = config->parallel_residual || tail ? NULL : a->x;
    if (tail && config->parallel_residual) { /* rows of out are written after those of its input are read */
        px_tail_gather(tail, a->out, a->x, (size_t)C, (size_t)C);
        input = a->out;
    }
    for (int row = 0; row < M; row += shape->mlp_rows) {
        int rows = M - row < shape->mlp_rows ? M - row : shape->mlp_rows;
        size_t at = (size_t)row * (size_t)C, kept = a->keep ? (size_t)row : 0;
        px_real *up = a->up + kept * (size_t)shape->up, *act = a->act + kept * (size_t)I;
        px_norm_forward(compute, shape, a->norm, a->mean2 ? a->mean2 + row : NULL, a->rstd2 ? a->rstd2 + row : NULL,
                        input + at, residual ? residual + at : NULL, tensor(model, view->norm2_w),
                        tensor(model, view->norm2_b), rows);
        px_linear_forward(compute, up, shape->up, a->norm, C, &first, tensor(model, view->up_b), rows);
        if (shape->traits.gated) {
            px_gated_forward(compute, config->activation, act, up, rows, I);
        } else {
            px_activation_forward(compute, config->activation, act, up, (size_t)rows * (size_t)I);
        }
        px_linear_forward(compute, a->out + at, C, act, I, &second, tensor(model, view->down_b), rows);
        px_add(compute, a->out + at, a->mid + at, (size_t)rows * (size_t)C);
    }
}

void px_block_forward(px_compute *compute, const px_shape *shape, const px_model *model, int layer,
                      const px_activations *a, const px_span *spans, int span_count, int M, const px_tail *tail)
{
    int rows = attention_branch(compute, shape, model, layer, a, spans, span_count, M, tail);
    mlp_branch(compute, shape, model, layer, a, rows, tail);
}

void px_head_logits(px_compute *compute, const px_shape *shape, const px_model *model, px_real *logits,
                    const px_real *hidden, int M)
{
    px_weight head = px_shape_weight(shape, model, 0, PX_LM_HEAD);
    px_linear_forward(compute, logits, head.out, hidden, head.in, &head, NULL, M);
}
