/* Attention forward, and the store of keys and values. */
#include <string.h>
#include "kernels.h"
#include "split.h"

static size_t round_up_tokens(int tokens)
{
    return ((size_t)tokens + PX_KEY_BLOCK - 1) / PX_KEY_BLOCK * PX_KEY_BLOCK;
}

size_t px_kv_elements(int kv_heads, int D, int tokens)
{
    return (size_t)kv_heads * (size_t)D * round_up_tokens(tokens);
}

static void store_row(const px_kv *kv, int position, const px_real *k, const px_real *v)
{
    size_t D = (size_t)kv->D, head_size = D * (size_t)kv->capacity;
    size_t block = (size_t)position / PX_KEY_BLOCK * PX_KEY_BLOCK * D + (size_t)position % PX_KEY_BLOCK;
    for (int h = 0; h < kv->kv_heads; h++) {
        px_real *keys = kv->k + (size_t)h * head_size + block;
        for (size_t d = 0; d < D; d++) keys[d * PX_KEY_BLOCK] = k[(size_t)h * D + d];
        memcpy(kv->v + (size_t)h * head_size + (size_t)position * D, v + (size_t)h * D, D * sizeof *v);
    }
}

/* Rows [begin, end), counted over all spans. */
static void store_rows(const px_span *spans, const px_real *k, const px_real *v, size_t ld, size_t begin, size_t end)
{
    size_t first = 0; /* of the span */
    for (int s = 0; first < end; first += (size_t)spans[s++].rows) {
        const px_span *span = &spans[s];
        size_t row = begin > first ? begin - first : 0;
        for (; row < (size_t)span->rows && first + row < end; row++) {
            size_t at = ((size_t)span->row + row) * ld;
            store_row(&span->kv, span->position + (int)row, k + at, v + at);
        }
    }
}

void px_kv_store(px_compute *ctx, const px_span *spans, int count, const px_real *k, const px_real *v, int ld)
{
    size_t rows = 0;
    for (int s = 0; s < count; s++) {
        PX_CHECK(spans[s].position >= 0 && spans[s].position + spans[s].rows <= spans[s].kv.capacity);
        rows += (size_t)spans[s].rows;
    }
    if (rows == 0) return;
    int threads = px_threads_for(ctx, rows * (size_t)spans[0].kv.kv_heads * (size_t)spans[0].kv.D, 1 << 12);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++)
        store_rows(spans, k, v, (size_t)ld, px_share(rows, threads, share, 1), px_share(rows, threads, share + 1, 1));
}

typedef struct forward_job {
    px_real *out, *lse;
    const px_real *q;
    int ldout, ldq, heads, window;
    int together; /* query heads of a kv head in one task of a span of one row */
    double scale;
} forward_job;

enum { ROWS_A_TASK = 64 };

static int tasks_of(const forward_job *job, const px_span *span)
{
    if (span->rows == 1) return job->heads / job->together;
    return (span->rows + ROWS_A_TASK - 1) / ROWS_A_TASK * job->heads;
}

/* Query heads from `head` on: rows [begin, end) of one, or all of a group at the only row. */
static void attend(const forward_job *job, const px_span *span, int head, int begin, int end, px_real *work)
{
    size_t D = (size_t)span->kv.D, kv_head = (size_t)head / (size_t)(job->heads / span->kv.kv_heads);
    size_t head_size = D * (size_t)span->kv.capacity, row = (size_t)span->row;
    bool group = span->rows == 1;
    px_head_job one = {.q = job->q + row * (size_t)job->ldq + (size_t)head * D,
                       .k = span->kv.k + kv_head * head_size,
                       .v = span->kv.v + kv_head * head_size,
                       .out = job->out + row * (size_t)job->ldout + (size_t)head * D,
                       .lse = job->lse ? job->lse + row * (size_t)job->heads + head : NULL,
                       .ldq = group ? D : (size_t)job->ldq,
                       .ldout = group ? D : (size_t)job->ldout,
                       .ldlse = group ? 1 : (size_t)job->heads,
                       .position = span->position,
                       .advance = group ? 0 : 1,
                       .D = span->kv.D,
                       .window = job->window,
                       .scale = (px_real)job->scale};
    px_kernels_get()->attention_rows(&one, begin, end, work);
}

/* Task `index` of all: spans in order, in each the row tasks from the last (longest) one, in each the heads. */
static void attend_index(const forward_job *job, const px_span *spans, int index, px_real *work)
{
    const px_span *span = spans;
    for (int tasks; index >= (tasks = tasks_of(job, span)); span++) index -= tasks;
    if (span->rows == 1) {
        attend(job, span, index * job->together, 0, job->together, work);
        return;
    }
    int begin = (tasks_of(job, span) - 1 - index) / job->heads * ROWS_A_TASK;
    int end = begin + ROWS_A_TASK < span->rows ? begin + ROWS_A_TASK : span->rows;
    attend(job, span, index % job->heads, begin, end, work);
}

double px_span_keys(const px_span *span, int window)
{
    double first = span->position + 1, last = span->position + span->rows, w = window > 0 ? window : last;
    if (first >= w) return (double)span->rows * w;
    double grows = (last < w ? last : w) - first + 1; /* rows that read all keys up to their own */
    return grows * (2 * first + grows - 1) / 2 + (span->rows - grows) * w;
}

void px_attention_forward(px_compute *ctx, px_real *out, int ldout, px_real *lse, const px_real *q, int ldq,
                          const px_span *spans, int count, int heads, double scale, int window)
{
    forward_job job = {out, lse, q, ldout, ldq, heads, window, 1, scale};
    int tasks = 0, groups = 0;
    size_t cost = 0; /* about: multiply-adds */
    double keys = 0.0;
    for (int s = 0; s < count; s++) {
        PX_CHECK(spans[s].kv.D <= PX_MAX_HEAD_DIM && heads % spans[s].kv.kv_heads == 0);
        groups += spans[s].kv.kv_heads;
        cost += (size_t)spans[s].rows * (size_t)(spans[s].position + spans[s].rows) * (size_t)(spans[s].kv.D * heads);
        keys += px_span_keys(&spans[s], window) * spans[s].kv.D;
    }
    /* Heads that read the same keys go together, unless that leaves threads idle. */
    if (groups >= 4 * ctx->threads) job.together = heads / spans[0].kv.kv_heads;
    for (int s = 0; s < count; s++) tasks += tasks_of(&job, &spans[s]);
    px_flops_add(4.0 * heads * keys); /* scores and their sum of values */
    int threads = px_threads_for(ctx, cost, 1 << 14);
    size_t mark = px_arena_mark(&ctx->scratch);
    px_real *work = px_arena_push(&ctx->scratch, (size_t)threads * PX_ATTENTION_WORK * sizeof *work);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
    for (int i = 0; i < tasks; i++)
        attend_index(&job, spans, i, work + (size_t)omp_get_thread_num() * PX_ATTENTION_WORK);
    px_arena_release(&ctx->scratch, mark);
}
