/* Attention backward. For one kv head of one span: key blocks in order, for each the query rows that see it, in chunks.
 * P is recomputed from lse; dV += P^T dO, dS = P (dO V^T - delta) scale, dK += dS^T Q, dQ += dS K. A task owns its
 * kv head's dk, dv and its query heads' dq, so nothing depends on the threads. */
#include <string.h>
#include "kernels.h"
#include "split.h"

enum { KEYS = 64, ROWS = 256 }; /* of one tile of P */

typedef struct backward_job {
    px_real *dq, *dk, *dv;
    const px_real *dout, *out, *lse, *q;
    size_t ldd, ldout, ldq;
    int heads, window;
    px_real scale;
} backward_job;

/* One thread's share of the scratch. */
typedef struct backward_work {
    px_real *key;     /* [KEYS][D] the block's keys, row-major */
    px_real *p, *ds;  /* [ROWS][KEYS] */
    px_real *delta;   /* [longest span] of one head */
    px_real *pack_a, *pack_b;
} backward_work;

static size_t pack_elements(int D)
{
    int widest = D > KEYS ? D : KEYS;
    return px_product_pack_a(ROWS > widest ? ROWS : widest, ROWS > widest ? ROWS : widest);
}

static size_t pack_b_elements(int D)
{
    int widest = D > KEYS ? D : KEYS;
    return px_product_pack_b(widest, ROWS > widest ? ROWS : widest);
}

static size_t work_elements(int longest, int D)
{
    size_t all = (size_t)KEYS * (size_t)D + 2 * (size_t)ROWS * KEYS + (size_t)longest + pack_elements(D) +
                 pack_b_elements(D);
    return (all + 5 * 16 + 15) / 16 * 16;
}

static px_real *take(px_real **from, size_t count)
{
    px_real *at = *from;
    *from += (count + 15) / 16 * 16;
    return at;
}

static backward_work work_of(px_real *at, int longest, int D)
{
    backward_work work;
    work.key = take(&at, (size_t)KEYS * (size_t)D);
    work.p = take(&at, (size_t)ROWS * KEYS);
    work.ds = take(&at, (size_t)ROWS * KEYS);
    work.delta = take(&at, (size_t)longest);
    work.pack_a = take(&at, pack_elements(D));
    work.pack_b = take(&at, pack_b_elements(D));
    return work;
}

static void multiply(const backward_work *work, px_real *c, size_t ldc, px_operand a, px_operand b, int rows, int columns,
                     int depth, bool add)
{
    px_product job = {.c = c, .ldc = ldc, .a = a, .b = b, .rows = rows, .columns = columns, .depth = depth, .add = add};
    px_products_get(PX_F32)->product(&job, work->pack_a, work->pack_b);
}

static void unpack_keys(px_real *to, const px_real *blocks, int key, int count, int D)
{
    for (int j = 0; j < count; j++) {
        size_t at = (size_t)(key + j) / PX_KEY_BLOCK * PX_KEY_BLOCK * (size_t)D + (size_t)(key + j) % PX_KEY_BLOCK;
        for (size_t d = 0; d < (size_t)D; d++) to[(size_t)j * (size_t)D + d] = blocks[at + d * PX_KEY_BLOCK];
    }
}

/* One tile: query rows [row, row + rows) of the span and one head against keys [key, key + keys). */
static void tile(const backward_job *job, const px_span *span, int head, int row, int rows, int key, int keys,
                 const px_real *value, px_real *dk, px_real *dv, const backward_work *work)
{
    size_t D = (size_t)span->kv.D, at = (size_t)(span->row + row), column = (size_t)head * D;
    const px_real *q = job->q + at * job->ldq + column, *dout = job->dout + at * job->ldout + column;
    int width = span->kv.D;
    multiply(work, work->p, KEYS, (px_operand){q, job->ldq, 1}, (px_operand){work->key, D, 1}, rows, keys, width, false);
    multiply(work, work->ds, KEYS, (px_operand){dout, job->ldout, 1}, (px_operand){value, D, 1}, rows, keys, width,
             false);
    px_kernels_get()->attention_scores(work->p, work->ds, KEYS, job->lse + at * (size_t)job->heads + head,
                                       (size_t)job->heads, work->delta + row, rows, keys, span->position + row, key,
                                       job->window, job->scale);
    multiply(work, dv, job->ldd, (px_operand){work->p, 1, KEYS}, (px_operand){dout, 1, job->ldout}, keys, width, rows,
             true);
    multiply(work, dk, job->ldd, (px_operand){work->ds, 1, KEYS}, (px_operand){q, 1, job->ldq}, keys, width, rows, true);
    multiply(work, job->dq + at * job->ldd + column, job->ldd, (px_operand){work->ds, KEYS, 1},
             (px_operand){work->key, 1, D}, rows, width, keys, true);
}

static void head_deltas(const backward_job *job, const px_span *span, int head, px_real *delta)
{
    size_t D = (size_t)span->kv.D;
    for (int r = 0; r < span->rows; r++) {
        size_t at = (size_t)(span->row + r) * job->ldout + (size_t)head * D;
        px_real sum[16] = {0};
        for (size_t d = 0; d < D; d++) sum[d % 16] += job->dout[at + d] * job->out[at + d];
        for (int j = 1; j < 16; j++) sum[0] += sum[j];
        delta[r] = sum[0];
    }
}

static void clear_rows(px_real *to, size_t ld, int rows, size_t width)
{
    for (int r = 0; r < rows; r++) memset(to + (size_t)r * ld, 0, width * sizeof *to);
}

static void kv_head_backward(const backward_job *job, const px_span *span, int kv_head, const backward_work *work)
{
    size_t D = (size_t)span->kv.D, head_size = D * (size_t)span->kv.capacity, first = (size_t)span->key_row * job->ldd;
    const px_real *blocks = span->kv.k + (size_t)kv_head * head_size, *values = span->kv.v + (size_t)kv_head * head_size;
    px_real *dk = job->dk + first + (size_t)kv_head * D, *dv = job->dv + first + (size_t)kv_head * D;
    int group = job->heads / span->kv.kv_heads, position = span->position, seen = position + span->rows;
    clear_rows(dk, job->ldd, seen, D);
    clear_rows(dv, job->ldd, seen, D);
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        clear_rows(job->dq + (size_t)span->row * job->ldd + (size_t)head * D, job->ldd, span->rows, D);
        head_deltas(job, span, head, work->delta);
        for (int key = 0; key < seen; key += KEYS) {
            int keys = seen - key < KEYS ? seen - key : KEYS, end = seen; /* rows before the position `end` */
            if (job->window > 0 && end > key + keys - 1 + job->window) end = key + keys - 1 + job->window;
            end -= position;
            unpack_keys(work->key, blocks, key, keys, span->kv.D);
            for (int row = key > position ? key - position : 0; row < end; row += ROWS)
                tile(job, span, head, row, end - row < ROWS ? end - row : ROWS, key, keys, values + (size_t)key * D,
                     dk + (size_t)key * job->ldd, dv + (size_t)key * job->ldd, work);
        }
    }
}

void px_attention_backward(px_compute *ctx, px_real *dq, px_real *dk, px_real *dv, int ldd, const px_real *dout,
                           const px_real *out, int ldout, const px_real *lse, const px_real *q, int ldq,
                           const px_span *spans, int count, int heads, double scale, int window)
{
    if (count <= 0) return;
    backward_job job = {dq, dk, dv, dout, out, lse, q, (size_t)ldd, (size_t)ldout, (size_t)ldq, heads, window,
                        (px_real)scale};
    int longest = 0, D = spans[0].kv.D, kv_heads = spans[0].kv.kv_heads;
    for (int s = 0; s < count; s++) {
        PX_CHECK(spans[s].position >= 0 && spans[s].kv.D == D && spans[s].kv.kv_heads == kv_heads);
        if (spans[s].rows > longest) longest = spans[s].rows;
        px_flops_add(10.0 * heads * D * px_span_keys(&spans[s], window)); /* five products */
    }
    int tasks = count * kv_heads, threads = ctx->threads < tasks ? ctx->threads : tasks;
    size_t mark = px_arena_mark(&ctx->scratch), share = work_elements(longest, D);
    px_real *base = px_arena_push(&ctx->scratch, (size_t)threads * share * sizeof *base);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
    for (int i = 0; i < tasks; i++) {
        backward_work work = work_of(base + (size_t)omp_get_thread_num() * share, longest, D);
        kv_head_backward(&job, &spans[i / kv_heads], i % kv_heads, &work);
    }
    px_arena_release(&ctx->scratch, mark);
}

size_t px_attention_scratch(int max_tokens, int max_sequence, int heads, int kv_heads, int D, int threads)
{
    (void)max_tokens;
    (void)heads;
    (void)kv_heads;
    size_t backward = work_elements(max_sequence, D), forward = PX_ATTENTION_WORK;
    return (size_t)threads * (backward > forward ? backward : forward) * sizeof(px_real) + 64;
}
