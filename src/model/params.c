/* The parameter table: names as in Hugging Face files, shapes as in memory, offsets in one flat block. A family is
 * three lists of rows (before the blocks, of a block, after the blocks) and nothing else. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "block.h"

#define ALIGN_ELEMENTS 16 /* 64 bytes in float */

typedef enum row_size { SIZE_NONE, SIZE_ONE, SIZE_V, SIZE_C, SIZE_P, SIZE_Q, SIZE_KV, SIZE_QKV, SIZE_I } row_size;
typedef enum row_when { ALWAYS, IF_QKV_BIAS, IF_OUT_BIAS, IF_MLP_BIAS, IF_UNTIED, IF_SCALAR } row_when;

typedef struct row {
    const char *name;
    size_t view;       /* where the offset goes in px_model or px_layer_view; JOINED: right after the row before */
    row_size out, in;  /* in SIZE_NONE: a vector */
    int split;
    row_when when;
    bool transposed;
} row;

#define JOINED SIZE_MAX
#define OUTER(field) offsetof(px_model, field)
#define BLOCK(field) offsetof(px_layer_view, field)

static const row gpt2_before[] = {
    {"transformer.wte.weight", OUTER(embed), SIZE_V, SIZE_C, 0, ALWAYS, false},
    {"transformer.wpe.weight", OUTER(position), SIZE_P, SIZE_C, -1, ALWAYS, false},
    {NULL, 0, 0, 0, 0, 0, false},
};
static const row gpt2_block[] = {
    {"ln_1.weight", BLOCK(norm1_w), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"ln_1.bias", BLOCK(norm1_b), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"attn.c_attn.weight", BLOCK(qkv_w), SIZE_QKV, SIZE_C, 0, ALWAYS, true},
    {"attn.c_attn.bias", BLOCK(qkv_b), SIZE_QKV, SIZE_NONE, 0, ALWAYS, false},
    {"attn.c_proj.weight", BLOCK(out_w), SIZE_C, SIZE_Q, 1, ALWAYS, true},
    {"attn.c_proj.bias", BLOCK(out_b), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"ln_2.weight", BLOCK(norm2_w), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"ln_2.bias", BLOCK(norm2_b), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"mlp.c_fc.weight", BLOCK(up_w), SIZE_I, SIZE_C, 0, ALWAYS, true},
    {"mlp.c_fc.bias", BLOCK(up_b), SIZE_I, SIZE_NONE, 0, ALWAYS, false},
    {"mlp.c_proj.weight", BLOCK(down_w), SIZE_C, SIZE_I, 1, ALWAYS, true},
    {"mlp.c_proj.bias", BLOCK(down_b), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {NULL, 0, 0, 0, 0, 0, false},
};
static const row gpt2_after[] = {
    {"transformer.ln_f.weight", OUTER(norm_w), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"transformer.ln_f.bias", OUTER(norm_b), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"lm_head.weight", OUTER(lm_head), SIZE_V, SIZE_C, 0, IF_UNTIED, false},
    {"score.weight", OUTER(score), SIZE_ONE, SIZE_C, -1, IF_SCALAR, false},
    {NULL, 0, 0, 0, 0, 0, false},
};

static const row llama_before[] = {
    {"model.embed_tokens.weight", OUTER(embed), SIZE_V, SIZE_C, 0, ALWAYS, false},
    {NULL, 0, 0, 0, 0, 0, false},
};
static const row llama_block[] = {
    {"input_layernorm.weight", BLOCK(norm1_w), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"self_attn.q_proj.weight", BLOCK(qkv_w), SIZE_Q, SIZE_C, 0, ALWAYS, false},
    {"self_attn.k_proj.weight", JOINED, SIZE_KV, SIZE_C, 0, ALWAYS, false},
    {"self_attn.v_proj.weight", JOINED, SIZE_KV, SIZE_C, 0, ALWAYS, false},
    {"self_attn.q_proj.bias", BLOCK(qkv_b), SIZE_Q, SIZE_NONE, 0, IF_QKV_BIAS, false},
    {"self_attn.k_proj.bias", JOINED, SIZE_KV, SIZE_NONE, 0, IF_QKV_BIAS, false},
    {"self_attn.v_proj.bias", JOINED, SIZE_KV, SIZE_NONE, 0, IF_QKV_BIAS, false},
    {"self_attn.o_proj.weight", BLOCK(out_w), SIZE_C, SIZE_Q, 1, ALWAYS, false},
    {"self_attn.o_proj.bias", BLOCK(out_b), SIZE_C, SIZE_NONE, -1, IF_OUT_BIAS, false},
    {"post_attention_layernorm.weight", BLOCK(norm2_w), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"mlp.gate_proj.weight", BLOCK(up_w), SIZE_I, SIZE_C, 0, ALWAYS, false},
    {"mlp.up_proj.weight", JOINED, SIZE_I, SIZE_C, 0, ALWAYS, false},
    {"mlp.gate_proj.bias", BLOCK(up_b), SIZE_I, SIZE_NONE, 0, IF_MLP_BIAS, false},
    {"mlp.up_proj.bias", JOINED, SIZE_I, SIZE_NONE, 0, IF_MLP_BIAS, false},
    {"mlp.down_proj.weight", BLOCK(down_w), SIZE_C, SIZE_I, 1, ALWAYS, false},
    {"mlp.down_proj.bias", BLOCK(down_b), SIZE_C, SIZE_NONE, -1, IF_MLP_BIAS, false},
    {NULL, 0, 0, 0, 0, 0, false},
};
static const row llama_after[] = {
    {"model.norm.weight", OUTER(norm_w), SIZE_C, SIZE_NONE, -1, ALWAYS, false},
    {"lm_head.weight", OUTER(lm_head), SIZE_V, SIZE_C, 0, IF_UNTIED, false},
    {"score.weight", OUTER(score), SIZE_ONE, SIZE_C, -1, IF_SCALAR, false},
    {NULL, 0, 0, 0, 0, 0, false},
};

typedef struct family {
    const char *block_prefix; /* before the layer's number */
    const row *before, *block, *after;
    px_traits traits;
} family;

static const family families[] = {
    [PX_GPT2] = {"transformer.h.", gpt2_before, gpt2_block, gpt2_after, {true, true, false}},
    [PX_LLAMA] = {"model.layers.", llama_before, llama_block, llama_after, {false, false, true}},
};

px_traits px_family_traits(px_family which) {
    return families[which].traits;
}

static int64_t size_of(const px_model_config *config, row_size size) {
    int64_t q = (int64_t)config->heads * config->head_dim, kv = (int64_t)config->kv_heads * config->head_dim;
    switch (size) {
    case SIZE_NONE:
    case SIZE_ONE: return 1;
    case SIZE_V: return config->vocab_size;
    case SIZE_C: return config->hidden_size;
    case SIZE_P: return config->max_positions;
    case SIZE_Q: return q;
    case SIZE_KV: return kv;
    case SIZE_QKV: return q + 2 * kv;
    case SIZE_I: return config->intermediate_size;
    }
    return 0;
}

static bool row_applies(const px_model_config *config, row_when when) {
    switch (when) {
    case ALWAYS: return true;
    case IF_QKV_BIAS: return config->attention_bias;
    case IF_OUT_BIAS: return config->output_bias;
    case IF_MLP_BIAS: return config->mlp_bias;
    case IF_UNTIED: return config->head == PX_HEAD_LM && !config->tied;
    case IF_SCALAR: return config->head == PX_HEAD_SCALAR;
    }
    return false;
}

static int count_rows(const px_model_config *config, const row *rows) {
    int count = 0;
    for (const row *r = rows; r->name; r++) count += row_applies(config, r->when);
    return count;
}

/* Appends a list of rows to the table; view is the struct that takes the offsets. */
static void add_rows(px_model *model, const row *rows, void *view, int layer) {
    const px_model_config *config = &model->config;
    for (const row *r = rows; r->name; r++) {
        if (!row_applies(config, r->when)) continue;
        px_param *param = &model->params[model->param_count++];
        if (layer < 0) {
            snprintf(param->name, sizeof param->name, "%s", r->name);
        } else {
            snprintf(param->name, sizeof param->name, "%s%d.%s", families[config->family].block_prefix, layer, r->name);
        }
        param->dims = r->in == SIZE_NONE ? 1 : 2;
        param->shape[0] = size_of(config, r->out);
        param->shape[1] = size_of(config, r->in);
        param->count = (size_t)param->shape[0] * (size_t)param->shape[1];
        if (r->view != JOINED) {
            model->block = (model->block + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
            memcpy((char *)view + r->view, &model->block, sizeof model->block);
        }
        param->offset = model->block;
        model->block += param->count;
        param->transposed = r->transposed;
        param->decay = param->dims == 2 && r->when != IF_SCALAR;
        param->trainable = true;
        param->split = r->split;
        param->layer = layer;
    }
}

px_status px_model_plan(px_model *model, const px_model_config *config) {
    const family *f = &families[config->family];
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
    model->embed = model->position = model->norm_w = model->norm_b = model->lm_head = model->score = SIZE_MAX;
    add_rows(model, f->before, model, -1);
    for (int layer = 0; layer < config->layers; layer++) {
        memset(&model->layers[layer], 0xff, sizeof model->layers[layer]); /* all SIZE_MAX: absent */
        add_rows(model, f->block, &model->layers[layer], layer);
    }
    add_rows(model, f->after, model, -1);
    model->block = (model->block + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
    if (config->head == PX_HEAD_LM && config->tied) model->lm_head = model->embed;
    return PX_OK;
}

px_status px_model_alloc(px_model *model) {
    model->weights = px_alloc_array(model->block, sizeof(px_real), "model weights");
    if (!model->weights) return px_error_code();
    model->borrowed = false;
    model->version = 1;
    return PX_OK;
}

void px_model_free(px_model *model) {
    if (!model) return;
    px_free(model->params);
    px_free(model->layers);
    if (!model->borrowed) px_free(model->weights);
    memset(model, 0, sizeof *model);
}

int64_t px_model_parameters(const px_model *model) {
    int64_t count = 0;
    for (int i = 0; i < model->param_count; i++) count += (int64_t)model->params[i].count;
    return count;
}

const px_param *px_model_param(const px_model *model, const char *name) {
    for (int i = 0; i < model->param_count; i++) {
        if (strcmp(model->params[i].name, name) == 0) return &model->params[i];
    }
    return NULL;
}

static void fill_normal(px_real *w, size_t count, const px_rng *rng, uint32_t tensor, double std) {
#pragma omp parallel for schedule(static) if (count > 4096)
    for (size_t i = 0; i < count; i++) {
        w[i] = (px_real)(std * px_rng_normal(rng, tensor, (uint32_t)i, (uint32_t)(i >> 32), 0));
    }
}

static bool is_norm_weight(const px_model *model, const px_param *param) {
    if (param->layer < 0) return param->offset == model->norm_w;
    const px_layer_view *view = &model->layers[param->layer];
    return param->offset == view->norm1_w || param->offset == view->norm2_w;
}

static double init_std(const px_model *model, const px_param *param) {
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

static void init_param(px_model *model, uint64_t seed, int index) {
    const px_param *param = &model->params[index];
    px_real *w = model->weights + param->offset;
    if (param->dims == 2) {
        px_rng rng = px_rng_make(seed, NULL, PX_RNG_INIT);
        fill_normal(w, param->count, &rng, (uint32_t)index, init_std(model, param));
        return;
    }
    px_real value = is_norm_weight(model, param) ? 1 : 0;
    for (size_t i = 0; i < param->count; i++) w[i] = value;
}

void px_model_init(px_model *model, uint64_t seed) {
    for (int i = 0; i < model->param_count; i++) init_param(model, seed, i);
    model->version++;
}

void px_model_init_score(px_model *model, uint64_t seed) {
    for (int i = 0; i < model->param_count; i++) {
        if (model->params[i].offset == model->score) init_param(model, seed, i);
    }
    model->version++;
}

int px_model_copy(px_model *to, const px_model *from) {
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

void px_model_arrays(const px_model *model, px_real *block, px_array *arrays) {
    for (int i = 0; i < model->param_count; i++) {
        const px_param *param = &model->params[i];
        arrays[i] = (px_array){.name = param->name,
                               .dtype = sizeof(px_real) == sizeof(double) ? PX_F64 : PX_F32,
                               .dims = param->dims,
                               .shape = {param->shape[0], param->dims == 2 ? param->shape[1] : 0},
                               .data = block + param->offset};
    }
}

/* A product of [M, in] and [out, in] is 2 M in out. Causal attention at mean length n reads (n + 1) / 2 keys a row, in
 * two products. */
double px_model_flops(const px_model_config *config, int64_t tokens, double length, int64_t head_rows) {
    double C = config->hidden_size, q = (double)config->heads * config->head_dim;
    double kv = (double)config->kv_heads * config->head_dim, I = config->intermediate_size;
    double products = C * (q + 2 * kv) + q * C + (px_family_traits(config->family).gated ? 3 : 2) * C * I;
    double attention = 2 * q * (length + 1) / 2;
    double head = config->head == PX_HEAD_LM ? C * config->vocab_size : config->head == PX_HEAD_SCALAR ? C : 0;
    return 2.0 * (double)tokens * config->layers * (products + attention) + 2.0 * (double)head_rows * head;
}
