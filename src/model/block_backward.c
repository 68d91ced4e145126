/* One transformer block, backward. Norm outputs are recomputed: a pass over [M, C] instead of keeping two of them. */
#include <math.h>
#include <string.h>

#include "block.h"

static px_real *at(px_real *block, size_t offset)
{
    return offset == SIZE_MAX ? NULL : block + offset;
}

void px_norm_backward(px_compute *compute, const px_shape *shape, px_real *dx, px_real *dw, px_real *db,
                      const px_real *dy, const px_real *x, const px_real *mean, const px_real *rstd, const px_real *w,
                      int M, bool accumulate)
{
    int C = shape->config.hidden_size;
    if (shape->traits.layernorm) {
        px_layernorm_backward(compute, dx, dw, db, dy, x, mean, rstd, w, M, C, accumulate);
    } else {
        px_rmsnorm_backward(compute, dx, dw, dy, x, rstd, w, M, C, shape->traits.norm_offset, accumulate);
    }
}

/* In: d->dx of the block's output. Out: d->dx of mid; where the branch reads the block's input, its part of that
 * input's gradient in d->dside. */
static void mlp_backward(px_compute *compute, const px_shape *shape, const px_model *model, int layer,
                         const px_activations *a, const px_gradients *d, px_real *grads, int M, const px_tail *tail)
{
    const px_layer_view *view = &model->layers[layer];
    const px_model_config *config = &shape->config;
    int C = config->hidden_size, I = config->intermediate_size;
    px_weight first = px_shape_weight(shape, model, layer, PX_UP);
    px_weight second = px_shape_weight(shape, model, layer, PX_DOWN);
    px_linear_backward_weight(compute, grads + view->down_w, at(grads, view->down_b), d->dx, C, a->act, I, M, C, I,
                              d->add);
    px_linear_backward_input(compute, d->dact, I, d->dx, C, &second, M, false);
    if (shape->traits.gated) {
        px_gated_backward(compute, config->activation, d->dup, d->dact, a->up, M, I);
    } else {
        px_activation_backward(compute, config->activation, d->dup, d->dact, a->up, (size_t)M * (size_t)I);
    }
    px_real *input = d->dside ? a->x : a->mid;
    if (tail && d->dside) { /* the output is read no more */
        px_tail_gather(tail, a->out, a->x, (size_t)C, (size_t)C);
        input = a->out;
    }
    px_norm_forward(compute, shape, a->norm, NULL, NULL, input, NULL, model->weights + view->norm2_w,
                    at(model->weights, view->norm2_b), M);
    px_linear_backward_weight(compute, grads + view->up_w, at(grads, view->up_b), d->dup, shape->up, a->norm, C, M,
                              shape->up, C, d->add);
    px_linear_backward_input(compute, d->dnorm, C, d->dup, shape->up, &first, M, false);
    px_norm_backward(compute, shape, d->dside ? d->dside : d->dx, grads + view->norm2_w, at(grads, view->norm2_b),
                     d->dnorm, input, a->mean2, a->rstd2, model->weights + view->norm2_w, M, !d->dside);
}

static void heads_backward(px_compute *compute, const px_shape *shape, const px_model *model, const px_layer_view *view,
                           const px_activations *a, const px_gradients *d, px_real *grads, int M)
{
    const px_model_config *c = &shape->config;
    int D = c->head_dim, all = c->heads + c->kv_heads, width = shape->q + shape->kv, offset = shape->traits.norm_offset;
    px_rmsnorm_heads_backward(compute, d->dqkv, shape->qkv, grads + view->q_norm_w, a->qk, width, a->qk_rstd, all,
                              model->weights + view->q_norm_w, M, c->heads, D, offset);
    px_rmsnorm_heads_backward(compute, d->dqkv + shape->q, shape->qkv, grads + view->k_norm_w, a->qk + shape->q, width,
                              a->qk_rstd + c->heads, all, model->weights + view->k_norm_w, M, c->kv_heads, D, offset);
}

/* Gradients of q, k and v of all rows. With a tail few have queries, and a sequence's last keys may have none that see them. */
static void core_backward(px_compute *compute, const px_shape *shape, const px_activations *a, const px_gradients *d,
                          const px_span *spans, int span_count, int M, const px_tail *tail)
{
    const px_heads rows = px_shape_heads(shape, a->qkv), gradients = px_shape_heads(shape, d->dqkv);
    size_t qkv = (size_t)shape->qkv, kv = (size_t)shape->kv;
    if (tail) {
        for (size_t m = 0; m < (size_t)M; m++) memset(gradients.k + m * qkv, 0, 2 * kv * sizeof(px_real));
        spans = tail->spans;
        span_count = tail->span_count;
    }
    px_attention_backward(compute, &gradients, d->dattention, a->attention, shape->q, a->lse, &rows, spans, span_count,
                          1 / sqrt(shape->config.head_dim), shape->config.window);
    if (tail) px_tail_scatter(tail, d->dqkv, qkv, (size_t)shape->q, M);
}

/* In: d->dx of mid. Out: d->dx of the block's input. */
static void attention_backward(px_compute *compute, const px_shape *shape, const px_model *model, int layer,
                               const px_activations *a, const px_gradients *d, px_real *grads, const px_span *spans,
                               int span_count, const int32_t *positions, int M, const px_tail *tail)
{
    const px_layer_view *view = &model->layers[layer];
    const px_model_config *config = &shape->config;
    int C = config->hidden_size, D = config->head_dim, q = shape->q, qkv = shape->qkv, rows = tail ? tail->count : M;
    px_weight out = px_shape_weight(shape, model, layer, PX_OUT), in = px_shape_weight(shape, model, layer, PX_QKV);
    px_linear_backward_weight(compute, grads + view->out_w, at(grads, view->out_b), d->dx, C, a->attention, q, rows, C, q,
                              d->add);
    px_linear_backward_input(compute, d->dattention, q, d->dx, C, &out, rows, false);
    core_backward(compute, shape, a, d, spans, span_count, M, tail);
    if (tail) px_tail_scatter(tail, d->dx, (size_t)C, (size_t)C, M);
    if (shape->rotary.cosine) {
        px_rope_apply(compute, d->dqkv, qkv, positions, &shape->rotary, M, config->heads + config->kv_heads, D, true);
    }
    if (shape->traits.head_norm) heads_backward(compute, shape, model, view, a, d, grads, M);
    px_norm_forward(compute, shape, a->norm, NULL, NULL, a->x, NULL, model->weights + view->norm1_w,
                    at(model->weights, view->norm1_b), M);
    px_linear_backward_weight(compute, grads + view->qkv_w, at(grads, view->qkv_b), d->dqkv, qkv, a->norm, C, M,
                              qkv, C, d->add);
    px_linear_backward_input(compute, d->dnorm, C, d->dqkv, qkv, &in, M, false);
    px_norm_backward(compute, shape, d->dx, grads + view->norm1_w, at(grads, view->norm1_b), d->dnorm, a->x, a->mean1,
                     a->rstd1, model->weights + view->norm1_w, M, true);
}

void px_block_backward(px_compute *compute, const px_shape *shape, const px_model *model, int layer,
                       const px_activations *a, const px_gradients *d, px_real *grads, const px_span *spans,
                       int span_count, const int32_t *positions, int M, const px_tail *tail)
{
    mlp_backward(compute, shape, model, layer, a, d, grads, tail ? tail->count : M, tail);
    attention_backward(compute, shape, model, layer, a, d, grads, spans, span_count, positions, M, tail);
    if (tail && d->dside) px_tail_scatter(tail, d->dside, (size_t)shape->config.hidden_size, (size_t)shape->config.hidden_size, M);
    if (d->dside) px_add(compute, d->dx, d->dside, (size_t)M * (size_t)shape->config.hidden_size);
}
