/* Backward through final norm, blocks and embedding, from the last layer to the first. */
#include "engine.h"

static void ready(px_grad_ready on_ready, void *arg, size_t begin, size_t end) {
    if (on_ready && end > begin) on_ready(arg, begin, end - begin);
}

/* The block of weights is tiled, padding included: [embedding][layer 0] .. [layer L-1][norm, head]. */
static size_t layer_begin(const px_model *model, int layer) {
    return layer < model->config.layers ? model->layers[layer].norm1_w : model->norm_w;
}

void px_engine_blocks_backward(px_engine *engine, const px_model *model, px_real *grads, int first, int last,
                               px_grad_ready on_ready, void *arg) {
    for (int layer = last - 1; layer >= first; layer--) {
        /* What is inside a block has the bits of the first time, and so has the output, which is written again. */
        if (engine->plan.recompute && layer + 1 < model->config.layers) {
            px_engine_blocks_forward(engine, model, layer, layer + 1);
        }
        px_block_backward(&engine->compute, &engine->shape, model, layer, &engine->layers[layer], &engine->gradients,
                          grads, engine->spans, engine->sequences, engine->positions, engine->tokens);
        ready(on_ready, arg, layer_begin(model, layer), layer_begin(model, layer + 1));
    }
}

void px_engine_backward(px_engine *engine, const px_model *model, px_real *grads, px_grad_ready on_ready, void *arg) {
    PX_CHECK(engine->plan.train);
    int L = model->config.layers;
    px_norm_backward(&engine->compute, &engine->shape, engine->gradients.dx, grads + model->norm_w,
                     model->norm_b == SIZE_MAX ? NULL : grads + model->norm_b, engine->gradients.dnorm, engine->last,
                     engine->mean, engine->rstd, model->weights + model->norm_w, engine->tokens, false);
    ready(on_ready, arg, layer_begin(model, L), model->block);
    px_engine_blocks_backward(engine, model, grads, 0, L, on_ready, arg);
    px_embed_backward(&engine->compute, model, grads, engine->ids, engine->positions, engine->gradients.dx,
                      engine->tokens);
    ready(on_ready, arg, 0, layer_begin(model, 0));
}
