/* The matrices of a model in the product's own layout, made once for many forwards. */
#include "block.h"

static void matrix_size(const px_shape *shape, px_matrix matrix, int *out, int *in)
{
    const px_model_config *config = &shape->config;
    int C = config->hidden_size;
    *out = matrix == PX_QKV ? shape->qkv : matrix == PX_UP ? shape->up : matrix == PX_LM_HEAD ? config->vocab_size : C;
    *in = matrix == PX_OUT ? shape->q : matrix == PX_DOWN ? config->intermediate_size : C;
}

/* Bytes for forward, whole cache lines. */
static size_t forward_size(const px_shape *shape, px_matrix matrix)
{
    int out, in;
    matrix_size(shape, matrix, &out, &in);
    return (px_weight_packed(shape->precision, out, in) + 63) / 64 * 64;
}

/* All bytes of a matrix: for forward, then for backward. */
static size_t packed_size(const px_shape *shape, px_matrix matrix)
{
    int out, in;
    if (matrix == PX_LM_HEAD && shape->config.head != PX_HEAD_LM) return 0;
    matrix_size(shape, matrix, &out, &in);
    size_t backward = shape->packed_twice ? (px_weight_packed(shape->precision, in, out) + 63) / 64 * 64 : 0;
    return forward_size(shape, matrix) + backward;
}

/* The layers one after another, then the head. */
static size_t packed_offset(const px_shape *shape, int layer, px_matrix matrix)
{
    size_t before = 0, whole = 0;
    for (int m = PX_QKV; m <= PX_DOWN; m++) {
        size_t size = packed_size(shape, (px_matrix)m);
        whole += size;
        if (m < (int)matrix) before += size;
    }
    return matrix == PX_LM_HEAD ? whole * (size_t)shape->config.layers : whole * (size_t)layer + before;
}

bool px_packed_holds(const px_shape *shape, const px_model *model)
{
    return shape->packed_of == model->weights && shape->packed_version == model->version;
}

px_weight px_shape_weight(const px_shape *shape, const px_model *model, int layer, px_matrix matrix)
{
    px_weight weight = {.halves = shape->packed_halves};
    matrix_size(shape, matrix, &weight.out, &weight.in);
    if (model->bf16) {
        const px_matrices16 *all = model->bf16;
        weight.bf16 = matrix == PX_LM_HEAD ? &all->lm_head
                      : matrix == PX_QKV   ? &all->layers[layer].qkv
                      : matrix == PX_OUT   ? &all->layers[layer].out
                      : matrix == PX_UP    ? &all->layers[layer].up
                                           : &all->layers[layer].down;
    } else if (matrix == PX_LM_HEAD) {
        weight.raw = model->weights + model->lm_head;
    } else {
        const px_layer_view *view = &model->layers[layer];
        weight.raw = model->weights + (matrix == PX_QKV  ? view->qkv_w
                                       : matrix == PX_OUT ? view->out_w
                                       : matrix == PX_UP  ? view->up_w
                                                          : view->down_w);
    }
    if (px_packed_holds(shape, model)) {
        const char *at = shape->packed + packed_offset(shape, layer, matrix);
        weight.packed = at;
        if (shape->packed_twice) weight.packed_transposed = at + forward_size(shape, matrix);
    }
    return weight;
}

void px_packed_layout(px_shape *shape, px_layout *layout, bool backward)
{
    shape->packed_twice = backward;
    size_t count = packed_offset(shape, 0, PX_LM_HEAD) + packed_size(shape, PX_LM_HEAD);
    shape->packed = px_layout_take(layout, count, 1);
    shape->packed_of = NULL;
}

static void pack(px_shape *shape, px_compute *compute, const px_model *model, int layer, px_matrix matrix)
{
    px_weight weight = px_shape_weight(shape, model, layer, matrix);
    char *at = shape->packed + packed_offset(shape, layer, matrix);
    px_weight_pack(compute, at, &weight, false);
    if (shape->packed_twice) px_weight_pack(compute, at + forward_size(shape, matrix), &weight, true);
}

/* Are all matrices bf16 exactly? The weights of a mapped model are not one block. */
static bool all_halve(px_compute *compute, const px_model *model)
{
    if (model->bf16) return px_weights_halve(compute, NULL, 0);
    bool all = true;
    for (int i = 0; i < model->param_count && all; i++) {
        const px_param *param = &model->params[i];
        if (param->dims == 2) all = px_weights_halve(compute, model->weights + param->offset, param->count);
    }
    return all;
}

void px_packed_refresh(px_shape *shape, px_compute *compute, const px_model *model)
{
    if (px_packed_holds(shape, model)) return;
    shape->packed_halves = all_halve(compute, model);
    for (int layer = 0; layer < shape->config.layers; layer++) {
        for (int m = PX_QKV; m <= PX_DOWN; m++) pack(shape, compute, model, layer, (px_matrix)m);
    }
    if (shape->config.head == PX_HEAD_LM) pack(shape, compute, model, 0, PX_LM_HEAD);
    shape->packed_of = model->weights;
    shape->packed_version = model->version;
}
