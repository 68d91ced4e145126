/* Attention forward, and the store of keys and values. */
#include <string.h>
#include "kernels.h"
#include "split.h"

static size_t round_up_tokens(int tokens)
{
    return ((size_t)tokens + PX_KEY_BLOCK - 1) / PX_KEY_BLOCK * PX_KEY_BLOCK;
}

static size_t element(bool halves) { return halves ? sizeof(uint16_t) : sizeof(px_real); }

size_t px_kv_bytes(bool halves, int kv_heads, int D, int tokens)
{
    return (size_t)kv_heads * (size_t)D * round_up_tokens(tokens) * element(halves);
}

static void *at_element(const px_kv *kv, void *cache, size_t index) { return (char *)cache + index * element(kv->halves); }

static void store_values(const px_kv *kv, size_t at, const px_real *v)
{
    void *to = at_element(kv, kv->v, at);
    if (kv->halves)
        px_kernels_get()->narrow(to, v, (size_t)kv->D);
    else
        memcpy(to, v, (size_t)kv->D * sizeof *v);
}

/* One head's key and value at a position. */
static void store_head(const px_kv *kv, int head, int position, const px_real *k, const px_real *v)
{
    size_t D = (size_t)kv->D, first = (size_t)head * D * (size_t)kv->capacity, at = (size_t)position;
    void *keys = at_element(kv, kv->k, first + at / PX_KEY_BLOCK * PX_KEY_BLOCK * D + at % PX_KEY_BLOCK);
    if (kv->halves) {
        uint16_t halves[PX_MAX_HEAD_DIM];
        px_kernels_get()->narrow(halves, k, D);
        for (size_t d = 0; d < D; d++) ((uint16_t *)keys)[d * PX_KEY_BLOCK] = halves[d];
    } else {
        for (size_t d = 0; d < D; d++) ((px_real *)keys)[d * PX_KEY_BLOCK] = k[d];
    }
    store_values(kv, first + at * D, v);
}

/* A span's row as it is attended to: of kv heads [head, end) queries and keys are rotated, keys and values rounded. */
static void finish_row(const px_heads *rows, const px_rotary *rotary, const px_span *span, int row, int head, int end)
{
    int D = span->kv.D, group = rows->heads / span->kv.kv_heads, position = span->position + row;
    size_t at = (size_t)(span->row + row) * rows->ld, column = (size_t)head * (size_t)D;
    if (rotary->cosine) {
        px_rope_row(rows->q + at + (size_t)group * column, position, rotary, group * (end - head), D, false);
        px_rope_row(rows->k + at + column, position, rotary, end - head, D, false);
    }
    if (span->kv.rounded) {
        px_kernels_get()->round_bf16(rows->k + at + column, (size_t)(end - head) * (size_t)D);
        px_kernels_get()->round_bf16(rows->v + at + column, (size_t)(end - head) * (size_t)D);
    }
}

/* Rows [row, row + count) of a span; a whole key block of them is transposed at once. */
static void store_some(const px_heads *rows, const px_span *span, int row, int count)
{
    const px_kv *kv = &span->kv;
    size_t D = (size_t)kv->D, head_size = D * (size_t)kv->capacity, ld = rows->ld;
    size_t at = (size_t)(span->row + row) * ld, first = (size_t)(span->position + row) * D;
    for (int h = 0; h < kv->kv_heads; h++, at += D, first += head_size) {
        if (count < PX_KEY_BLOCK) {
            store_head(kv, h, span->position + row, rows->k + at, rows->v + at);
            continue;
        }
        px_kernels_get()->key_block(at_element(kv, kv->k, first), kv->halves, rows->k + at, ld, kv->D);
        for (size_t r = 0; r < PX_KEY_BLOCK; r++) store_values(kv, first + r * D, rows->v + at + r * ld);
    }
}

/* Rows [begin, end), counted over all spans. */
static void store_rows(const px_span *spans, const px_heads *rows, const px_rotary *rotary, size_t begin, size_t end)
{
    size_t first = 0; /* of the span */
    for (int s = 0; first < end; first += (size_t)spans[s++].rows) {
        const px_span *span = &spans[s];
        int row = begin > first ? (int)(begin - first) : 0;
        int last = end - first < (size_t)span->rows ? (int)(end - first) : span->rows;
        for (int count; row < last; row += count) {
            bool whole = (span->position + row) % PX_KEY_BLOCK == 0 && last - row >= PX_KEY_BLOCK;
            count = whole ? PX_KEY_BLOCK : 1;
            for (int r = 0; r < count; r++) finish_row(rows, rotary, span, row + r, 0, span->kv.kv_heads);
            store_some(rows, span, row, count);
        }
    }
}

void px_kv_store(px_compute *ctx, const px_span *spans, int count, const px_heads *rows, const px_rotary *rotary)
{
    size_t all = 0;
    for (int s = 0; s < count; s++) {
        PX_CHECK(spans[s].position >= 0 && spans[s].position + spans[s].rows <= spans[s].kv.capacity);
        all += (size_t)spans[s].rows;
    }
    if (all == 0) return;
    int threads = px_threads_for(ctx, all * (size_t)spans[0].kv.kv_heads * (size_t)spans[0].kv.D, 1 << 12);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++)
        store_rows(spans, rows, rotary, px_share(all, threads, share, 1), px_share(all, threads, share + 1, 1));
}

typedef struct forward_job {
    px_real *out, *lse;
    const px_heads *rows;
    const px_rotary *fresh;
    int ldout, window;
    int together; /* query heads of a kv head in one task of a span of one row */
    double scale;
} forward_job;

enum { ROWS_A_TASK = 64 };

static int tasks_of(const forward_job *job, const px_span *span)
{
    if (span->rows == 1) return job->rows->heads / job->together;
    return (span->rows + ROWS_A_TASK - 1) / ROWS_A_TASK * job->rows->heads;
}

/* Does one task have all that reads a kv head of this row? Then it can write the key and value on its way. */
static bool has_group(const forward_job *job, const px_span *span)
{
    return span->rows == 1 && job->together * span->kv.kv_heads == job->rows->heads;
}

static void store_one(const forward_job *job, const px_span *span, int kv_head)
{
    size_t at = (size_t)span->row * job->rows->ld + (size_t)kv_head * (size_t)span->kv.D;
    finish_row(job->rows, job->fresh, span, 0, kv_head, kv_head + 1);
    store_head(&span->kv, kv_head, span->position, job->rows->k + at, job->rows->v + at);
}

/* Keys and values that more than one task reads. */
static void store_before(px_compute *ctx, const forward_job *job, const px_span *spans, int count)
{
    for (int s = 0, run; s < count; s += run + 1) {
        for (run = 0; s + run < count && !has_group(job, &spans[s + run]);) run++;
        px_kv_store(ctx, spans + s, run, job->rows, job->fresh);
    }
}

/* Query heads from `head` on: rows [begin, end) of one, or all of a group at the only row. */
static void attend(const forward_job *job, const px_span *span, int head, int begin, int end, px_real *work)
{
    const px_heads *rows = job->rows;
    size_t D = (size_t)span->kv.D, kv_head = (size_t)head / (size_t)(rows->heads / span->kv.kv_heads);
    size_t first = kv_head * D * (size_t)span->kv.capacity, row = (size_t)span->row;
    bool group = span->rows == 1;
    px_head_job one = {.q = rows->q + row * rows->ld + (size_t)head * D,
                       .k = at_element(&span->kv, span->kv.k, first),
                       .v = at_element(&span->kv, span->kv.v, first),
                       .halves = span->kv.halves,
                       .out = job->out + row * (size_t)job->ldout + (size_t)head * D,
                       .lse = job->lse ? job->lse + row * (size_t)rows->heads + (size_t)head : NULL,
                       .ldq = group ? D : rows->ld,
                       .ldout = group ? D : (size_t)job->ldout,
                       .ldlse = group ? 1 : (size_t)rows->heads,
                       .position = span->position,
                       .advance = group ? 0 : 1,
                       .D = span->kv.D,
                       .window = job->window,
                       .scale = (px_real)job->scale};
    if (job->fresh && has_group(job, span)) store_one(job, span, (int)kv_head);
    px_kernels_get()->attention_rows(&one, begin, end, work);
}

/* The span of task *index, which becomes its index there: spans in order. */
static const px_span *span_of(const forward_job *job, const px_span *spans, int *index)
{
    for (int tasks; *index >= (tasks = tasks_of(job, spans)); spans++) *index -= tasks;
    return spans;
}

/* Of a span from its last (longest) rows on, at each the heads. */
static void attend_index(const forward_job *job, const px_span *spans, int index, px_real *work)
{
    const px_span *span = span_of(job, spans, &index);
    if (span->rows == 1) {
        attend(job, span, index * job->together, 0, job->together, work);
        return;
    }
    int heads = job->rows->heads, begin = (tasks_of(job, span) - 1 - index) / heads * ROWS_A_TASK;
    int end = begin + ROWS_A_TASK < span->rows ? begin + ROWS_A_TASK : span->rows;
    attend(job, span, index % heads, begin, end, work);
}

/* What a decoding task will read, towards the second-level cache: runs of keys and values that end before a processor has
 * seen that they are runs. */
static void fetch_index(const forward_job *job, const px_span *spans, int index)
{
    enum { LINE = 64, MOST = 16 << 10 };
    const px_span *span = span_of(job, spans, &index);
    if (span->rows != 1) return;
    const px_kv *kv = &span->kv;
    size_t D = (size_t)kv->D, head = (size_t)(index * job->together / (job->rows->heads / kv->kv_heads));
    size_t first = head * D * (size_t)kv->capacity, bytes = px_kv_bytes(kv->halves, 1, kv->D, span->position + 1);
    const char *runs[] = {at_element(kv, kv->k, first), at_element(kv, kv->v, first)};
    for (int r = 0; r < 2; r++)
        for (size_t i = 0; i < bytes && i < MOST; i += LINE) __builtin_prefetch(runs[r] + i, 0, 2);
}

double px_span_keys(const px_span *span, int window)
{
    double first = span->position + 1, last = span->position + span->rows, w = window > 0 ? window : last;
    if (first >= w) return (double)span->rows * w;
    double grows = (last < w ? last : w) - first + 1; /* rows that read all keys up to their own */
    return grows * (2 * first + grows - 1) / 2 + (span->rows - grows) * w;
}

void px_attention_forward(px_compute *ctx, px_real *out, int ldout, px_real *lse, const px_heads *rows,
                          const px_rotary *fresh, const px_span *spans, int count, double scale, int window)
{
    forward_job job = {out, lse, rows, fresh, ldout, window, 1, scale};
    int tasks = 0, groups = 0, heads = rows->heads;
    size_t cost = 0; /* about: multiply-adds */
    double keys = 0.0;
    for (int s = 0; s < count; s++) {
        PX_CHECK(spans[s].kv.D <= PX_MAX_HEAD_DIM && heads % spans[s].kv.kv_heads == 0);
        PX_CHECK(spans[s].position >= 0 && spans[s].position + spans[s].rows <= spans[s].kv.capacity);
        groups += spans[s].kv.kv_heads;
        cost += (size_t)spans[s].rows * (size_t)(spans[s].position + spans[s].rows) * (size_t)(spans[s].kv.D * heads);
        keys += px_span_keys(&spans[s], window) * spans[s].kv.D;
    }
    /* Heads that read the same keys go together, unless that leaves threads idle. */
    if (groups >= 4 * ctx->threads) job.together = heads / spans[0].kv.kv_heads;
    if (fresh) store_before(ctx, &job, spans, count);
    for (int s = 0; s < count; s++) tasks += tasks_of(&job, &spans[s]);
    px_flops_add(4.0 * heads * keys); /* scores and their sum of values */
    int threads = px_threads_for(ctx, cost, 1 << 14);
    size_t mark = px_arena_mark(&ctx->scratch);
    px_real *work = px_arena_push(&ctx->scratch, (size_t)threads * PX_ATTENTION_WORK * sizeof *work);
    int chunk = tasks / (32 * threads) < 1 ? 1 : tasks / (32 * threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, chunk) if (threads > 1)
    for (int i = 0; i < tasks; i++) {
        if (i + 1 < tasks) fetch_index(&job, spans, i + 1);
        attend_index(&job, spans, i, work + (size_t)omp_get_thread_num() * PX_ATTENTION_WORK);
    }
    px_arena_release(&ctx->scratch, mark);
}
