/* Linear layers: three products on one row-invariant kernel, cut over threads in a grid of rows and columns. */
#include <string.h>

#include "kernels.h"
#include "split.h"

static size_t rounded(size_t count, size_t unit) { return (count + unit - 1) / unit * unit; }

static size_t at_most(size_t a, size_t b) { return a < b ? a : b; }

/* The largest register tile of any instruction set, for padding. */
enum { MAX_TILE_ROWS = 16 };

size_t px_product_pack_a(int rows, int depth)
{
    return rounded(at_most((size_t)rows, PX_ROW_BLOCK) + MAX_TILE_ROWS, 16) *
           rounded(at_most((size_t)depth, PX_DEPTH_BLOCK), 16);
}

size_t px_product_pack_b(int columns, int depth)
{
    return rounded(at_most((size_t)columns, PX_COLUMN_BLOCK), PX_PANEL) * at_most((size_t)depth, PX_DEPTH_BLOCK);
}

/* Bytes of one thread's packed blocks, a whole number of cache lines. */
static size_t thread_bytes(int rows, int columns, int depth)
{
    return rounded((px_product_pack_a(rows, depth) + px_product_pack_b(columns, depth)) * sizeof(px_real), 64);
}

/* Rows of the thread grid (columns: threads / rows) that makes the largest share of work plus packing smallest. Operands
 * that are read in place or are packed already cost none. */
static int grid_rows(const px_product *job, int threads, const px_products *kernels)
{
    int best = 1;
    double row_cost = px_product_in_place(job, kernels->step) ? 0 : 16, column_cost = job->packed ? 0 : 16;
    double best_cost = 0;
    for (int r = 1; r <= threads; r++) {
        if (threads % r) continue;
        double rows = (double)rounded(((size_t)job->rows + (size_t)r - 1) / (size_t)r, (size_t)kernels->tile_rows);
        int c = threads / r;
        double columns = (double)rounded(((size_t)job->columns + (size_t)c - 1) / (size_t)c, PX_PANEL);
        double cost = rows * columns + row_cost * rows + column_cost * columns;
        if (r == 1 || cost < best_cost) {
            best = r;
            best_cost = cost;
        }
    }
    return best;
}

static void product_share(const px_product *job, const px_products *kernels, int share, int grid, int threads,
                          char *scratch, size_t bytes)
{
    int across = threads / grid, r = share / across, c = share % across;
    size_t row = px_share((size_t)job->rows, grid, r, (size_t)kernels->tile_rows);
    size_t row_end = px_share((size_t)job->rows, grid, r + 1, (size_t)kernels->tile_rows);
    size_t column = px_share((size_t)job->columns, across, c, PX_PANEL);
    size_t column_end = px_share((size_t)job->columns, across, c + 1, PX_PANEL);
    if (row >= row_end || column >= column_end) return;
    px_product part = *job;
    part.rows = (int)(row_end - row);
    part.columns = (int)(column_end - column);
    part.c += row * job->ldc + column;
    part.a.data += row * job->a.row;
    if (part.b.data) part.b.data += column * job->b.row;
    part.first += (int)column;
    if (part.bias) part.bias += column;
    px_real *pack = (px_real *)(scratch + (size_t)share * bytes);
    kernels->product(&part, pack, pack + px_product_pack_a(part.rows, part.depth));
}

static void product_run(px_compute *ctx, const px_product *job)
{
    if (job->rows <= 0 || job->columns <= 0) return;
    px_flops_add(2.0 * job->rows * job->columns * job->depth);
    const px_products *kernels = px_products_get(ctx->precision);
    size_t mark = px_arena_mark(&ctx->scratch);
    int threads = px_threads_for(ctx, (size_t)job->rows * (size_t)job->columns * (size_t)job->depth, 1 << 15);
    int grid = grid_rows(job, threads, kernels);
    size_t bytes = thread_bytes(job->rows, job->columns, job->depth);
    char *scratch = px_arena_push(&ctx->scratch, bytes * (size_t)threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) product_share(job, kernels, share, grid, threads, scratch, bytes);
    px_arena_release(&ctx->scratch, mark);
}

static uint32_t word_of(px_real value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    return word;
}

static size_t steps(int depth, int step) { return ((size_t)depth + (size_t)step - 1) / (size_t)step; }

size_t px_weight_packed(px_dtype precision, int out, int in)
{
    const px_products *kernels = px_products_get(precision);
    return kernels->pack_b ? rounded((size_t)out, PX_PANEL) * steps(in, kernels->step) * sizeof(px_real) : 0;
}

bool px_compute_reads_bf16(void)
{
    return sizeof(px_real) == sizeof(float) && px_products_get(PX_F32)->pack_b16;
}

bool px_weights_halve(px_compute *ctx, const px_real *weights, size_t count)
{
    enum { GLANCE = 1 << 12 }; /* enough to see that trained weights are not rounded */
    uint32_t low = 0;
    if (!px_products_get(ctx->precision)->halve) return false;
    for (size_t i = 0; i < count && i < GLANCE; i++) low |= word_of(weights[i]);
    if (low & 0xffffu) return false;
#pragma omp parallel for num_threads(ctx->threads) schedule(static) reduction(| : low)
    for (size_t i = 0; i < count; i++) low |= word_of(weights[i]);
    return (low & 0xffffu) == 0;
}

void px_weight_pack(px_compute *ctx, void *packed, const px_weight *w, bool transposed)
{
    const px_products *kernels = px_products_get(ctx->precision);
    if (!kernels->pack_b) return;
    size_t rows = (size_t)(transposed ? w->in : w->out), columns = rounded(rows, PX_PANEL), in = (size_t)w->in;
    int threads = px_threads_for(ctx, (size_t)w->out * in, 1 << 15), block = PX_DEPTH_BLOCK * kernels->step;
    int whole = transposed ? w->out : w->in;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++) {
        size_t row = px_share(rows, threads, share, PX_PANEL), end = px_share(rows, threads, share + 1, PX_PANEL);
        px_real *to = packed;
        for (int k = 0; k < whole && row < end; k += block) {
            int depth = whole - k < block ? whole - k : block;
            px_real *panels = to + row * steps(depth, kernels->step);
            if (w->bf16) {
                kernels->pack_b16(panels, w->bf16, in, (int)row, (int)(end - row), k, depth);
            } else {
                px_operand from = {w->raw + row * in + k, in, 1};
                if (transposed) from = (px_operand){w->raw + (size_t)k * in + row, 1, in};
                kernels->pack_b(panels, from, (int)(end - row), depth);
            }
            if (w->halves && kernels->halve) kernels->halve(panels, (int)(rounded(end - row, PX_PANEL) / PX_PANEL), depth);
            to += columns * steps(depth, kernels->step);
        }
    }
}

void px_linear_forward(px_compute *ctx, px_real *y, int ldy, const px_real *x, int ldx, const px_weight *w,
                       const px_real *bias, int M)
{
    px_product job = {.c = y, .ldc = (size_t)ldy, .bias = bias, .rows = M, .columns = w->out, .depth = w->in};
    job.a = (px_operand){x, (size_t)ldx, 1};
    job.b = (px_operand){w->raw, (size_t)w->in, 1};
    job.b16 = w->bf16;
    job.packed = w->packed;
    job.halves = w->halves && px_products_get(ctx->precision)->halve;
    job.packed_columns = rounded((size_t)w->out, PX_PANEL);
    product_run(ctx, &job);
}

void px_linear_backward_input(px_compute *ctx, px_real *dx, int lddx, const px_real *dy, int lddy, const px_weight *w,
                              int M, bool accumulate)
{
    px_product job = {.c = dx, .ldc = (size_t)lddx, .rows = M, .columns = w->in, .depth = w->out, .add = accumulate};
    job.a = (px_operand){dy, (size_t)lddy, 1};
    job.b = (px_operand){w->raw, 1, (size_t)w->in};
    job.packed = w->packed_transposed;
    job.halves = w->halves && px_products_get(ctx->precision)->halve;
    job.packed_columns = rounded((size_t)w->in, PX_PANEL);
    product_run(ctx, &job);
}

void px_linear_backward_weight(px_compute *ctx, px_real *dw, px_real *db, const px_real *dy, int lddy, const px_real *x,
                               int ldx, int M, int out, int in, bool accumulate)
{
    px_product job = {.c = dw, .ldc = (size_t)in, .rows = out, .columns = in, .depth = M, .add = accumulate};
    job.a = (px_operand){dy, 1, (size_t)lddy};
    job.b = (px_operand){x, 1, (size_t)ldx};
    product_run(ctx, &job);
    if (!db) return;
    const px_kernels *kernels = px_kernels_get();
    int threads = px_threads_for(ctx, (size_t)M * (size_t)out, 1 << 14);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int share = 0; share < threads; share++)
        kernels->column_sums(NULL, db, dy, (size_t)lddy, NULL, NULL, NULL, M, out,
                             (int)px_share((size_t)out, threads, share, 16),
                             (int)px_share((size_t)out, threads, share + 1, 16));
}

size_t px_linear_scratch(int M, int out, int in, int threads)
{
    size_t forward = thread_bytes(M, out, in), input = thread_bytes(M, in, out), weight = thread_bytes(out, in, M);
    size_t most = forward > input ? forward : input;
    return (most > weight ? most : weight) * (size_t)threads + 64;
}
