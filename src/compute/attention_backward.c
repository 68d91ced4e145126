/* Attention backward. For one kv head of one span: key blocks in order, for each the query rows that see it, in chunks.
 * P is recomputed from lse; dV += P^T dO, dS = P (dO V^T - delta) scale, dK += dS^T Q, dQ += dS K. A task owns its
 * kv head's dk, dv and its query heads' dq, so nothing depends on the threads. */
#include <string.h>
#include "kernels.h"
#include "split.h"

enum { KEYS = 64, ROWS = 256 }; /* of one tile of P */

typedef struct backward_job {
    px_heads to, from; /* gradients, and what they are of */
    const px_real *dout, *out, *lse;
    size_t ldout;
    int window;
    px_real scale;
    const px_products *products; /* for all but the scores: those have to be what the forward pass made lse of */
} backward_job;

/* One thread's share of the scratch. */
typedef struct backward_work {
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
    size_t all = 2 * (size_t)ROWS * KEYS + (size_t)longest + pack_elements(D) + pack_b_elements(D);
    return (all + 4 * 16 + 15) / 16 * 16;
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
    work.p = take(&at, (size_t)ROWS * KEYS);
    work.ds = take(&at, (size_t)ROWS * KEYS);
    work.delta = take(&at, (size_t)longest);
    work.pack_a = take(&at, pack_elements(D));
    work.pack_b = take(&at, pack_b_elements(D));
    return work;
}

static void multiply(const px_products *products, const backward_work *work, px_real *c, size_t ldc, px_operand a, px_operand b, int rows, int columns,
                     int depth, bool add)
{
    px_product job = {.c = c, .ldc = ldc, .a = a, .b = b, .rows = rows, .columns = columns, .depth = depth, .add = add};
    products->product(&job, work->pack_a, work->pack_b);
}

/* One tile: query rows [row, row + rows) of the span and one head against keys [key, key + keys). Gradients are written, or
 * added where an earlier tile has written. */
static void tile(const backward_job *job, const px_span *span, int head, int row, int rows, int key, int keys, bool add_q,
                 bool add_kv, const backward_work *work)
{
    const size_t ld = job->from.ld, ldd = job->to.ld, heads = (size_t)job->from.heads;
    size_t D = (size_t)span->kv.D, at = (size_t)(span->row + row), column = (size_t)head * D;
    size_t key_row = (size_t)(span->key_row + key), kv_column = (size_t)(head / (job->from.heads / span->kv.kv_heads)) * D;
    const px_real *q = job->from.q + at * ld + column, *dout = job->dout + at * job->ldout + column;
    const px_real *k = job->from.k + key_row * ld + kv_column, *v = job->from.v + key_row * ld + kv_column;
    px_real *dk = job->to.k + key_row * ldd + kv_column, *dv = job->to.v + key_row * ldd + kv_column;
    int width = span->kv.D;
    multiply(px_products_get(PX_F32), work, work->p, KEYS, (px_operand){q, ld, 1}, (px_operand){k, ld, 1}, rows, keys, width, false);
    multiply(job->products, work, work->ds, KEYS, (px_operand){dout, job->ldout, 1}, (px_operand){v, ld, 1}, rows, keys, width, false);
    px_kernels_get()->attention_scores(work->p, work->ds, KEYS, job->lse + at * heads + (size_t)head, heads,
                                       work->delta + row, rows, keys, span->position + row, key, job->window, job->scale);
    multiply(job->products, work, dv, ldd, (px_operand){work->p, 1, KEYS}, (px_operand){dout, 1, job->ldout}, keys, width, rows, add_kv);
    multiply(job->products, work, dk, ldd, (px_operand){work->ds, 1, KEYS}, (px_operand){q, 1, ld}, keys, width, rows, add_kv);
    multiply(job->products, work, job->to.q + at * ldd + column, ldd, (px_operand){work->ds, KEYS, 1}, (px_operand){k, 1, ld}, rows, width,
             keys, add_q);
}

static void clear_rows(px_real *to, size_t ld, int rows, size_t width)
{
    for (int r = 0; r < rows; r++) memset(to + (size_t)r * ld, 0, width * sizeof *to);
}

static void kv_head_backward(const backward_job *job, const px_span *span, int kv_head, const backward_work *work)
{
    size_t D = (size_t)span->kv.D, first = (size_t)span->key_row * job->to.ld + (size_t)kv_head * D;
    int group = job->from.heads / span->kv.kv_heads, position = span->position, seen = position + span->rows;
    bool gaps = job->window > 0; /* the first tiles of a head may leave out rows and keys */
    if (gaps) {
        clear_rows(job->to.k + first, job->to.ld, seen, D);
        clear_rows(job->to.v + first, job->to.ld, seen, D);
    }
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        size_t row0 = (size_t)span->row, column = (size_t)head * D;
        if (gaps) clear_rows(job->to.q + row0 * job->to.ld + column, job->to.ld, span->rows, D);
        px_kernels_get()->row_dots(work->delta, job->dout + row0 * job->ldout + column, job->out + row0 * job->ldout + column,
                                   job->ldout, span->rows, span->kv.D);
        for (int key = 0; key < seen; key += KEYS) {
            int keys = seen - key < KEYS ? seen - key : KEYS, end = seen; /* rows before the position `end` */
            if (job->window > 0 && end > key + keys - 1 + job->window) end = key + keys - 1 + job->window;
            end -= position;
            int begin = key > position ? key - position : 0;
            for (int row = begin; row < end; row += ROWS)
                tile(job, span, head, row, end - row < ROWS ? end - row : ROWS, key, keys, gaps || key > 0,
                     gaps || row > begin || head > kv_head * group, work);
        }
    }
}

void px_attention_backward(px_compute *ctx, const px_heads *gradients, const px_real *dout, const px_real *out, int ldout,
                           const px_real *lse, const px_heads *rows, const px_span *spans, int count, double scale,
                           int window)
{
    if (count <= 0) return;
    int longest = 0, D = spans[0].kv.D, kv_heads = spans[0].kv.kv_heads, heads = rows->heads;
    backward_job job = {*gradients, *rows, dout, out, lse, (size_t)ldout, window, (px_real)scale,
                        px_products_get(ctx->precision)};
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
