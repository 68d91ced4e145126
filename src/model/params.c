/* The parameter table: names as in Hugging Face files, shapes as in memory, offsets in one flat block, from a family's
 * three lists of rows (before the blocks, of a block, after the blocks). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "family.h"

#define ALIGN_ELEMENTS 16 /* 64 bytes in float */

static int64_t size_of(const px_model_config *config, px_row_size size)
{
    int64_t q = (int64_t)config->heads * config->head_dim, kv = (int64_t)config->kv_heads * config->head_dim;
    switch (size) {
    case SIZE_NONE:
    case SIZE_ONE: return 1;
    case SIZE_V: return config->vocab_size;
    case SIZE_C: return config->hidden_size;
    case SIZE_P: return (int64_t)config->max_positions + px_family_traits(config->family).position_offset;
    case SIZE_D: return config->head_dim;
    case SIZE_Q: return q;
    case SIZE_KV: return kv;
    case SIZE_QKV: return q + 2 * kv;
    case SIZE_I: return config->intermediate_size;
    }
    return 0;
}

static bool row_applies(const px_model_config *config, px_row_when when)
{
    switch (when) {
    case ALWAYS: return true;
    case IF_QKV_BIAS: return config->attention_bias;
    case IF_OUT_BIAS: return config->output_bias;
    case IF_MLP_BIAS: return config->mlp_bias;
    case IF_HEAD_NORM: return px_family_traits(config->family).head_norm;
    case IF_UNTIED: return config->head == PX_HEAD_LM && !config->tied;
    case IF_SCALAR: return config->head == PX_HEAD_SCALAR;
    }
    return false;
}

static int count_rows(const px_model_config *config, const px_row *rows)
{
    int count = 0;
    for (const px_row *r = rows; r->name; r++) count += row_applies(config, r->when);
    return count;
}

/* Appends a list of rows to the table. */
static void add_rows(px_model *model, const px_row *rows, int layer)
{
    const px_model_config *config = &model->config;
    for (const px_row *r = rows; r->name; r++) {
        if (!row_applies(config, r->when)) continue;
        px_param *param = &model->params[model->param_count++];
        if (layer < 0) {
            snprintf(param->name, sizeof param->name, "%s", r->name);
        } else {
            snprintf(param->name, sizeof param->name, "%s%d.%s", px_family_get(config->family)->block_base, layer,
                     r->name);
        }
        param->dims = r->in == SIZE_NONE ? 1 : 2;
        param->shape[0] = size_of(config, r->out);
        param->shape[1] = size_of(config, r->in);
        param->count = (size_t)param->shape[0] * (size_t)param->shape[1];
        if (r->view != JOINED) {
            model->block = (model->block + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
        }
        param->joined = r->view == JOINED;
        param->offset = model->block;
        model->block += param->count;
        param->transposed = r->order == TRANSPOSED;
        param->by_head = r->order == BY_HEAD ? config->head_dim : 0;
        param->decay = param->dims == 2 && r->when != IF_SCALAR;
        param->trainable = true;
        param->layer = layer;
    }
}

/* The offsets of a list of rows, whose first is parameter *index, into the struct that takes them. */
static void view_rows(const px_model *model, const px_row *rows, void *view, int *index)
{
    for (const px_row *r = rows; r->name; r++) {
        if (!row_applies(&model->config, r->when)) continue;
        const px_param *param = &model->params[(*index)++];
        if (r->view != JOINED) memcpy((char *)view + r->view, &param->offset, sizeof param->offset);
    }
}

void px_model_view(px_model *model)
{
    const px_family_info *f = px_family_get(model->config.family);
    int index = 0;
    model->embed = model->position = model->norm_w = model->norm_b = model->lm_head = model->score = SIZE_MAX;
    view_rows(model, f->before, model, &index);
    for (int layer = 0; layer < model->config.layers; layer++) {
        memset(&model->layers[layer], 0xff, sizeof model->layers[layer]); /* all SIZE_MAX: absent */
        view_rows(model, f->block, &model->layers[layer], &index);
    }
    view_rows(model, f->after, model, &index);
    if (model->config.head == PX_HEAD_LM && model->config.tied) model->lm_head = model->embed;
}

px_status px_model_plan(px_model *model, const px_model_config *config)
{
    const px_family_info *f = px_family_get(config->family);
    memset(model, 0, sizeof *model);
    model->config = *config;
    size_t rows = (size_t)count_rows(config, f->before) + (size_t)count_rows(config, f->after) +
                  (size_t)count_rows(config, f->block) * (size_t)config->layers;
    model->params = px_alloc_array(rows, sizeof *model->params, "parameter table");
    model->layers = px_alloc_array((size_t)config->layers, sizeof *model->layers, "parameter table");
    if (!model->params || !model->layers) {
        px_model_free(model);
        return px_error_code();
    }
    add_rows(model, f->before, -1);
    for (int layer = 0; layer < config->layers; layer++) add_rows(model, f->block, layer);
    add_rows(model, f->after, -1);
    model->block = (model->block + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    px_model_view(model);
    return PX_OK;
}

px_status px_model_alloc(px_model *model)
{
    model->weights = px_alloc_array(model->block, sizeof(px_real), "model weights");
    if (!model->weights) return px_error_code();
    model->borrowed = false;
    model->version = 1;
    return PX_OK;
}

px_status px_model_init_shared(px_model *model, uint64_t seed, const px_model_memory *memory)
{
    size_t bytes = px_whole_pages(model->block * sizeof(px_real));
    void *range = px_address_reserve(bytes, "model weights");
    if (!range) return px_error_code();
    model->range = range;
    model->range_bytes = bytes;
    model->weights = range;
    model->version = 1;
    PX_TRY(px_address_share(range, bytes, memory->fd, memory->offset, memory->fill, "model weights"));
    if (memory->fill) px_model_init(model, seed);
    return PX_OK;
}

void px_model_free(px_model *model)
{
    if (!model) return;
    px_free(model->params);
    px_free(model->layers);
    px_free(model->bf16);
    if (model->range) px_address_release(model->range, model->range_bytes);
    else if (!model->borrowed) px_free(model->weights);
    memset(model, 0, sizeof *model);
}

int64_t px_model_parameters(const px_model *model)
{
    int64_t count = 0;
    for (int i = 0; i < model->param_count; i++) count += (int64_t)model->params[i].count;
    return count;
}

const px_param *px_model_param(const px_model *model, const char *name)
{
    for (int i = 0; i < model->param_count; i++) {
        if (strcmp(model->params[i].name, name) == 0) return &model->params[i];
    }
    return NULL;
}

static void fill_normal(px_real *w, size_t count, const px_rng *rng, uint32_t tensor, double std)
{
#pragma omp parallel for schedule(static) if (count > 4096)
    for (size_t i = 0; i < count; i++) {
        w[i] = (px_real)(std * px_rng_normal(rng, tensor, (uint32_t)i, (uint32_t)(i >> 32), 0));
    }
}

static bool is_norm_weight(const px_model *model, const px_param *param)
{
    if (param->layer < 0) return param->offset == model->norm_w;
    const px_layer_view *view = &model->layers[param->layer];
    return param->offset == view->norm1_w || param->offset == view->norm2_w || param->offset == view->q_norm_w ||
           param->offset == view->k_norm_w;
}

static double init_std(const px_model *model, const px_param *param)
{
    const px_model_config *config = &model->config;
    if (param->offset == model->score) return 1 / sqrt(config->hidden_size + 1.0);
    if (config->family == PX_GPT2 && param->layer >= 0) {
        const px_layer_view *view = &model->layers[param->layer];
        if (param->offset == view->out_w || param->offset == view->down_w) {
            return config->initializer_range / sqrt(2.0 * config->layers);
        }
    }
    return config->initializer_range;
}

static void init_param(px_model *model, uint64_t seed, int index)
{
    const px_param *param = &model->params[index];
    px_real *w = model->weights + param->offset;
    if (param->dims == 2) {
        px_rng rng = px_rng_make(seed, NULL, PX_RNG_INIT);
        fill_normal(w, param->count, &rng, (uint32_t)index, init_std(model, param));
        return;
    }
    int one = 1 - px_family_traits(model->config.family).norm_offset;
    px_real value = is_norm_weight(model, param) ? (px_real)one : 0;
    for (size_t i = 0; i < param->count; i++) w[i] = value;
}

void px_model_init(px_model *model, uint64_t seed)
{
    for (int i = 0; i < model->param_count; i++) init_param(model, seed, i);
    model->version++;
}

void px_model_init_score(px_model *model, uint64_t seed)
{
    for (int i = 0; i < model->param_count; i++) {
        if (model->params[i].offset == model->score) init_param(model, seed, i);
    }
    model->version++;
}

int px_model_copy(px_model *to, const px_model *from)
{
    int copied = 0;
    for (int i = 0; i < to->param_count; i++) {
        const px_param *t = &to->params[i];
        const px_param *f = px_model_param(from, t->name);
        if (!f || f->dims != t->dims || f->shape[0] != t->shape[0] || f->shape[1] != t->shape[1]) continue;
        memcpy(to->weights + t->offset, from->weights + f->offset, t->count * sizeof(px_real));
        copied++;
    }
    to->version++;
    return copied;
}

void px_model_arrays(const px_model *model, px_real *block, px_array *arrays)
{
    for (int i = 0; i < model->param_count; i++) {
        const px_param *param = &model->params[i];
        arrays[i] = (px_array){.name = param->name,
                               .dtype = sizeof(px_real) == sizeof(double) ? PX_F64 : PX_F32,
                               .dims = param->dims,
                               .shape = {param->shape[0], param->dims == 2 ? param->shape[1] : 0},
                               .data = block + param->offset};
    }
}

/* Keys that a row of a sequence of length n reads on average: (n + 1) / 2, less what a window of w leaves out,
 * (n - w)(n - w + 1) / 2 in all. */
static double mean_keys(const px_model_config *config, double n)
{
    double w = config->window, keys = (n + 1) / 2;
    return w > 0 && n > w ? keys - (n - w) * (n - w + 1) / (2 * n) : keys;
}

/* A product of [M, in] and [out, in] is 2 M in out. Attention makes two of them a key. */
double px_model_flops(const px_model_config *config, int64_t tokens, double length, int64_t head_rows)
{
    double C = config->hidden_size, q = (double)config->heads * config->head_dim;
    double kv = (double)config->kv_heads * config->head_dim, I = config->intermediate_size;
    double products = C * (q + 2 * kv) + q * C + (px_family_traits(config->family).gated ? 3 : 2) * C * I;
    double attention = 2 * q * mean_keys(config, length);
    double head = config->head == PX_HEAD_LM ? C * config->vocab_size : config->head == PX_HEAD_SCALAR ? C : 0;
    return 2.0 * (double)tokens * config->layers * (products + attention) + 2.0 * (double)head_rows * head;
}
