/* Causal attention of one layer of the shape over whole sequences. */
#include "bench.h"

#include <math.h>
#include <stdio.h>

typedef struct layer {
    px_compute ctx;
    px_real *qkv, *dqkv; /* [tokens, q + 2 kv] */
    px_real *out, *dout; /* [tokens, q] */
    px_real *lse;        /* [tokens, heads] */
    char *cache;
    px_span *spans;
    int tokens, q, kv, ld;
} layer;

static px_status prepare(const px_bench *b, layer *l)
{
    const px_model_config *c = &b->model.config;
    l->tokens = (int)(b->batch * b->seq);
    l->q = c->heads * c->head_dim;
    l->kv = c->kv_heads * c->head_dim;
    l->ld = l->q + 2 * l->kv;
    size_t n = (size_t)l->tokens, q = (size_t)l->q, ld = (size_t)l->ld;
    size_t bytes = px_kv_bytes(false, c->kv_heads, c->head_dim, (int)b->seq);
    PX_TRY(px_compute_init(&l->ctx, (int)b->threads, px_attention_scratch(l->tokens, (int)b->seq, c->heads, c->kv_heads,
                                                                          c->head_dim, (int)b->threads)));
    l->ctx.precision = b->dtype;
    l->qkv = px_alloc_array(n * ld, sizeof *l->qkv, "queries, keys and values");
    l->dqkv = px_alloc_array(n * ld, sizeof *l->dqkv, "gradients");
    l->out = px_alloc_array(n * q, sizeof *l->out, "attention");
    l->dout = px_alloc_array(n * q, sizeof *l->dout, "gradients");
    l->lse = px_alloc_array(n * (size_t)c->heads, sizeof *l->lse, "denominators");
    l->cache = px_alloc_array(2 * (size_t)b->batch, bytes, "keys and values");
    l->spans = px_alloc_array((size_t)b->batch, sizeof *l->spans, "spans");
    if (l->qkv == NULL || l->dqkv == NULL || l->out == NULL || l->dout == NULL || l->lse == NULL || l->cache == NULL ||
        l->spans == NULL) {
        return px_error_code();
    }
    px_bench_fill(l->qkv, n * ld);
    px_bench_fill(l->dout, n * q);
    int capacity = (int)((b->seq + PX_KEY_BLOCK - 1) / PX_KEY_BLOCK * PX_KEY_BLOCK);
    for (int64_t s = 0; s < b->batch; s++) {
        char *k = l->cache + 2 * (size_t)s * bytes;
        px_kv kv = {k, k + bytes, c->kv_heads, c->head_dim, capacity, b->dtype == PX_BF16, false};
        l->spans[s] = (px_span){.row = (int)(s * b->seq), .rows = (int)b->seq, .key_row = (int)(s * b->seq), .kv = kv};
    }
    return PX_OK;
}

static px_heads heads_of(const px_bench *b, const layer *l, px_real *qkv)
{
    return (px_heads){qkv, qkv + l->q, qkv + l->q + l->kv, (size_t)l->ld, b->model.config.heads};
}

static void forward(const px_bench *b, layer *l)
{
    const px_model_config *c = &b->model.config;
    const px_heads rows = heads_of(b, l, l->qkv);
    px_attention_forward(&l->ctx, l->out, l->q, l->lse, &rows, &(px_rotary){.dim = 0}, l->spans, (int)b->batch,
                         1.0 / sqrt(c->head_dim), 0);
}

static void backward(const px_bench *b, layer *l)
{
    const px_model_config *c = &b->model.config;
    const px_heads rows = heads_of(b, l, l->qkv), gradients = heads_of(b, l, l->dqkv);
    px_attention_backward(&l->ctx, &gradients, l->dout, l->out, l->q, l->lse, &rows, l->spans, (int)b->batch,
                          1.0 / sqrt(c->head_dim), 0);
}

static double best_seconds(const px_bench *b, layer *l, void (*pass)(const px_bench *, layer *))
{
    double best = INFINITY;
    for (int64_t trial = 0; trial < b->trials && px_stop_level() == 0; trial++) {
        double start = px_now();
        pass(b, l);
        best = fmin(best, px_now() - start);
    }
    return best;
}

/* Forward has two products over half a square, backward five: scores once more, and the gradients of all that went in. */
static px_status measure(px_bench *b, layer *l)
{
    const px_model_config *c = &b->model.config;
    double product = (double)l->tokens * (double)(b->seq + 1) * (double)l->q;
    char shape[64];
    snprintf(shape, sizeof shape, "%lldx%lld, %d heads of %d", (long long)b->batch, (long long)b->seq, c->heads,
             c->head_dim);
    px_bench_row row = {.what = "attention", .shape = shape, .precision = b->dtype, .tokens = l->tokens, .flops = 2.0 * product};
    row.seconds = best_seconds(b, l, forward);
    PX_TRY(px_bench_print(b, &row));
    row.what = "attention backward";
    row.flops = 5.0 * product;
    row.seconds = best_seconds(b, l, backward);
    return px_bench_print(b, &row);
}

px_status px_bench_attention(px_bench *b)
{
    layer l = {.tokens = 0};
    px_status status = prepare(b, &l);
    status = status == PX_OK ? measure(b, &l) : status;
    void *const arrays[] = {l.qkv, l.dqkv, l.out, l.dout, l.lse, l.cache};
    for (int i = 0; i < PX_COUNT(arrays); i++) {
        px_free(arrays[i]);
    }
    px_free(l.spans);
    px_compute_free(&l.ctx);
    return status;
}
