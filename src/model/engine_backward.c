/* Backward through final norm, blocks and embedding, from the last layer to the first. */
#include <string.h>

#include "engine.h"

static void ready(px_grad_ready on_ready, void *arg, size_t begin, size_t end)
{
    if (on_ready && end > begin) on_ready(arg, begin, end - begin);
}

/* The block of weights is tiled, padding included: [embedding][layer 0] .. [layer L-1][norm, head]. */
static size_t layer_begin(const px_model *model, int layer)
{
    return layer < model->config.layers ? model->layers[layer].norm1_w : model->norm_w;
}

void px_engine_fresh(px_engine *engine, uint8_t *used)
{
    engine->fresh = true;
    engine->used = used;
}

/* Only rows that were in use are other than 0: of a large vocabulary few. */
static void clear_embedding(const px_engine *engine, const px_model *model, px_real *grads)
{
    size_t V = (size_t)model->config.vocab_size, row = (size_t)model->config.hidden_size;
    for (size_t v = 0; v < V; v++) {
        if (!engine->used || engine->used[v]) memset(grads + model->embed + v * row, 0, row * sizeof *grads);
    }
    if (engine->used) memset(engine->used, 0, V);
}

static bool is_product(const px_param *param)
{
    return param->dims == 2 && param->layer >= 0;
}

void px_engine_begin_gradients(px_engine *engine, const px_model *model, px_real *grads, bool head)
{
    engine->gradients.add = !engine->fresh;
    if (!engine->fresh) return;
    for (int p = 0; p < model->param_count; p++) {
        const px_param *param = &model->params[p];
        if (is_product(param) || (param->offset == model->lm_head && head)) continue;
        if (param->offset == model->embed && model->embed != model->lm_head) {
            clear_embedding(engine, model, grads);
        } else {
            memset(grads + param->offset, 0, param->count * sizeof *grads);
        }
    }
}

void px_engine_blocks_backward(px_engine *engine, const px_model *model, px_real *grads, int first, int last,
                               px_grad_ready on_ready, void *arg)
{
    for (int layer = last - 1; layer >= first; layer--) {
        /* What is inside a block has the bits of the first time, and so has the output, which is written again. */
        if (engine->plan.recompute && layer + 1 < model->config.layers) {
            px_engine_blocks_forward(engine, model, layer, layer + 1);
        }
        px_block_backward(&engine->compute, &engine->shape, model, layer, &engine->layers[layer], &engine->gradients,
                          grads, engine->spans, engine->sequences, engine->positions, engine->tokens,
                          px_engine_tail(engine, layer));
        ready(on_ready, arg, layer_begin(model, layer), layer_begin(model, layer + 1));
    }
}

void px_engine_backward(px_engine *engine, const px_model *model, px_real *grads, px_grad_ready on_ready, void *arg)
{
    PX_CHECK(engine->plan.train);
    int L = model->config.layers;
    px_norm_backward(&engine->compute, &engine->shape, engine->gradients.dx, grads + model->norm_w,
                     model->norm_b == SIZE_MAX ? NULL : grads + model->norm_b, engine->gradients.dnorm, engine->last,
                     engine->mean, engine->rstd, model->weights + model->norm_w, engine->kept, false);
    ready(on_ready, arg, layer_begin(model, L), model->block);
    px_engine_blocks_backward(engine, model, grads, 0, L, on_ready, arg);
    for (int t = 0; engine->used && t < engine->tokens; t++) engine->used[engine->ids[t]] = 1;
    px_embed_backward(&engine->compute, model, grads, engine->ids, engine->positions, engine->gradients.dx,
                      engine->tokens);
    engine->fresh = false;
    ready(on_ready, arg, 0, layer_begin(model, 0));
}
