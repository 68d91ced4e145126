/* Causal attention of a few query rows with an online softmax over groups of PX_KEY_GROUP keys counted from position 0
 * (Milakov and Gimelshein 2018; Dao et al. 2022). Lanes run over keys in the scores and over head dimensions in the
 * weighted sum. Rows are taken together to share loads; each row's own chain of operations is that of the row alone. */
#include "kernel_pack.h"

/* SCORES, SUMS: as many chains of multiply-adds side by side as the registers hold; one alone waits for itself. */
enum { GROUP_BLOCKS = PX_KEY_GROUP / PX_KEY_BLOCK, SCORES = PX_PARTS == 1 ? 8 : 4, SUMS = PX_PARTS == 1 ? 16 : 6 };

/* Sixteen elements from `at` on. */
PX_INLINE px_lanes cached(const void *cache, bool halves, size_t at)
{
    return halves ? lanes_of_halves((const uint16_t *)cache + at) : px_lanes_load((const px_real *)cache + at);
}

PX_INLINE const void *cached_at(const void *cache, bool halves, size_t at)
{
    return halves ? (const void *)((const uint16_t *)cache + at) : (const px_real *)cache + at;
}

PX_INLINE px_lanes cached_some(const void *cache, bool halves, size_t at, int n)
{
    if (!halves) return px_lanes_load_some((const px_real *)cache + at, n);
    uint16_t all[PX_LANES] = {0};
    memcpy(all, (const uint16_t *)cache + at, (size_t)n * sizeof *all);
    return lanes_of_halves(all);
}

PX_INLINE void scores_beside(int rows, int blocks, px_real *scores, const px_real *q, const void *keys, bool halves, int D)
{
    px_lanes sum[PX_QUERY_TILE][GROUP_BLOCKS];
    PX_PRAGMA(GCC unroll 4) for (int r = 0; r < rows; r++)
        PX_PRAGMA(GCC unroll 4) for (int b = 0; b < blocks; b++) sum[r][b] = px_lanes_set(0);
    for (int d = 0; d < D; d++) {
        px_lanes key[GROUP_BLOCKS];
        PX_PRAGMA(GCC unroll 4) for (int b = 0; b < blocks; b++)
            key[b] = cached(keys, halves, ((size_t)b * (size_t)D + (size_t)d) * PX_KEY_BLOCK);
        PX_PRAGMA(GCC unroll 4) for (int r = 0; r < rows; r++) {
            px_lanes value = px_lanes_set(q[r * PX_MAX_HEAD_DIM + d]);
            PX_PRAGMA(GCC unroll 4) for (int b = 0; b < blocks; b++) sum[r][b] = px_lanes_fma(value, key[b], sum[r][b]);
        }
    }
    PX_PRAGMA(GCC unroll 4) for (int r = 0; r < rows; r++)
        PX_PRAGMA(GCC unroll 4) for (int b = 0; b < blocks; b++)
            px_lanes_store(scores + r * PX_KEY_GROUP + b * PX_KEY_BLOCK, sum[r][b]);
}

/* scores[r][block][16] for `blocks` key blocks from `keys` on. q is already scaled. */
PX_INLINE void scores_of(int rows, px_real *scores, const px_real *q, const void *keys, bool halves, int blocks, int D)
{
    const int beside = SCORES / rows < GROUP_BLOCKS ? SCORES / rows : GROUP_BLOCKS;
    for (int b = 0; b < blocks; b += beside) {
        px_real *to = scores + b * PX_KEY_BLOCK;
        const void *from = cached_at(keys, halves, (size_t)b * (size_t)D * PX_KEY_BLOCK);
        switch (blocks - b < beside ? blocks - b : beside) {
        case 1: scores_beside(rows, 1, to, q, from, halves, D); break;
        case 2: scores_beside(rows, beside < 2 ? beside : 2, to, q, from, halves, D); break;
        case 3: scores_beside(rows, beside < 3 ? beside : 3, to, q, from, halves, D); break;
        default: scores_beside(rows, beside, to, q, from, halves, D);
        }
    }
}

/* Turns one row's scores of a group into weights relative to the new maximum. Keys outside [low, high), which are in the
 * first `blocks` blocks, weigh 0. Returns the factor by which what was summed before shrinks. */
PX_INLINE px_real weigh(px_real *scores, int blocks, int low, int high, px_real *largest, px_real *total)
{
    const px_lanes nothing = px_lanes_set((px_real)-INFINITY);
    px_lanes s[GROUP_BLOCKS], top = nothing, sum = px_lanes_set(0);
    PX_PRAGMA(GCC unroll 4) for (int b = 0; b < GROUP_BLOCKS; b++) {
        s[b] = nothing;
        if (b >= blocks) continue;
        s[b] = px_lanes_within(px_lanes_load(scores + b * PX_LANES), nothing, low - b * PX_LANES, high - b * PX_LANES);
        top = px_lanes_max(top, s[b]);
    }
    px_real before = *largest, now = px_lanes_largest(top);
    if (!(now > before) && now == now) now = before;
    px_lanes base = px_lanes_set(now);
    PX_PRAGMA(GCC unroll 4) for (int b = 0; b < GROUP_BLOCKS; b++) {
        if (b >= blocks) continue;
        px_lanes p = px_lanes_exp(px_lanes_sub(s[b], base));
        p = px_lanes_within(p, px_lanes_set(0), low - b * PX_LANES, high - b * PX_LANES);
        px_lanes_store(scores + b * PX_LANES, p);
        sum = px_lanes_add(sum, p);
    }
    px_part shrink = px_part_exp(px_part_set(before - now));
    px_real factor = before == (px_real)-INFINITY ? 0 : before == now ? 1 : shrink[0];
    *largest = now;
    *total = *total * factor + px_lanes_sum(sum);
    return factor;
}

/* sums[r][lanes * 16] += weight of keys [low, high) times their values */
PX_INLINE void add_values(int rows, int lanes, px_real *sums, const px_real *weights, const void *values, bool halves, int low,
                          int high, int D)
{
    px_lanes sum[PX_QUERY_TILE][4];
    PX_PRAGMA(GCC unroll 4) for (int r = 0; r < rows; r++)
        PX_PRAGMA(GCC unroll 4) for (int v = 0; v < lanes; v++)
            sum[r][v] = px_lanes_load(sums + r * PX_MAX_HEAD_DIM + v * PX_LANES);
    for (int j = low; j < high; j++) {
        px_lanes value[4];
        PX_PRAGMA(GCC unroll 4) for (int v = 0; v < lanes; v++)
            value[v] = cached(values, halves, (size_t)j * (size_t)D + (size_t)(v * PX_LANES));
        PX_PRAGMA(GCC unroll 4) for (int r = 0; r < rows; r++) {
            px_lanes p = px_lanes_set(weights[r * PX_KEY_GROUP + j]);
            PX_PRAGMA(GCC unroll 4) for (int v = 0; v < lanes; v++) sum[r][v] = px_lanes_fma(p, value[v], sum[r][v]);
        }
    }
    PX_PRAGMA(GCC unroll 4) for (int r = 0; r < rows; r++)
        PX_PRAGMA(GCC unroll 4) for (int v = 0; v < lanes; v++)
            px_lanes_store(sums + r * PX_MAX_HEAD_DIM + v * PX_LANES, sum[r][v]);
}

PX_INLINE void add_values_rows(int rows, px_real *sums, const px_real *weights, const void *values, bool halves, int low,
                               int high, int D)
{
    const int most = SUMS / rows < 4 ? SUMS / rows : 4;
    int d = 0;
    for (int lanes; (lanes = (D - d) / PX_LANES) > 0; d += (lanes < most ? lanes : most) * PX_LANES) {
        switch (lanes < most ? lanes : most) {
        case 1: add_values(rows, 1, sums + d, weights, cached_at(values, halves, (size_t)d), halves, low, high, D); break;
        case 2: add_values(rows, most < 2 ? most : 2, sums + d, weights, cached_at(values, halves, (size_t)d), halves, low, high, D); break;
        case 3: add_values(rows, most < 3 ? most : 3, sums + d, weights, cached_at(values, halves, (size_t)d), halves, low, high, D); break;
        default: add_values(rows, most, sums + d, weights, cached_at(values, halves, (size_t)d), halves, low, high, D);
        }
    }
    for (int j = low; d < D && j < high; j++) {
        px_lanes value = cached_some(values, halves, (size_t)j * (size_t)D + (size_t)d, D - d);
        for (int r = 0; r < rows; r++) {
            px_real *sum = sums + r * PX_MAX_HEAD_DIM + d;
            px_lanes_store(sum, px_lanes_fma(px_lanes_set(weights[r * PX_KEY_GROUP + j]), value, px_lanes_load(sum)));
        }
    }
}

/* Compiled for each number of rows and kind of cache. */
#define EACH_ROWS(call) \
    switch (halves ? rows + PX_QUERY_TILE : rows) { \
    case 1: call(1, false); break; \
    case 2: call(2, false); break; \
    case 3: call(3, false); break; \
    case PX_QUERY_TILE: call(PX_QUERY_TILE, false); break; \
    case PX_QUERY_TILE + 1: call(1, true); break; \
    case PX_QUERY_TILE + 2: call(2, true); break; \
    case PX_QUERY_TILE + 3: call(3, true); break; \
    default: call(PX_QUERY_TILE, true); \
    }

static void add_values_some(int rows, px_real *sums, const px_real *weights, const void *values, bool halves, int low,
                            int high, int D)
{
    if (low >= high) return;
#define CALL(n, kind) add_values_rows(n, sums, weights, values, kind, low, high, D)
    EACH_ROWS(CALL)
#undef CALL
}

static void scores_some(int rows, px_real *scores, const px_real *q, const void *keys, bool halves, int blocks, int D)
{
#define CALL(n, kind) scores_of(n, scores, q, keys, kind, blocks, D)
    EACH_ROWS(CALL)
#undef CALL
}

/* At most PX_QUERY_TILE rows, which all begin and end in the same key group. */
static void attention_tile(const px_head_job *job, int row, int rows, px_real *work)
{
    px_real *q = work, *sums = q + PX_QUERY_TILE * PX_MAX_HEAD_DIM, *scores = sums + PX_QUERY_TILE * PX_MAX_HEAD_DIM;
    px_real largest[PX_QUERY_TILE], total[PX_QUERY_TILE];
    int D = job->D, advance = job->advance, first = job->position + advance * row, last = first + advance * (rows - 1);
    int low[PX_QUERY_TILE], high[PX_QUERY_TILE] = {0};
    const bool halves = job->halves;
    for (int r = 0; r < rows; r++) {
        largest[r] = (px_real)-INFINITY;
        total[r] = 0;
        for (int d = 0; d < D; d++) q[r * PX_MAX_HEAD_DIM + d] = job->q[(size_t)(row + r) * job->ldq + (size_t)d] * job->scale;
        memset(sums + r * PX_MAX_HEAD_DIM, 0, (size_t)(D + PX_LANES) / PX_LANES * PX_LANES * sizeof *sums);
    }
    int start = job->window > 0 && first >= job->window ? (first - job->window + 1) / PX_KEY_GROUP * PX_KEY_GROUP : 0;
    for (int base = start; base <= last; base += PX_KEY_GROUP) {
        int from = 0, to = PX_KEY_GROUP; /* keys that every row sees */
        for (int r = 0; r < rows; r++) {
            int seen = first + advance * r + 1, bottom = job->window > 0 && seen > job->window ? seen - job->window : 0;
            low[r] = bottom > base ? bottom - base : 0;
            high[r] = seen - base < PX_KEY_GROUP ? seen - base : PX_KEY_GROUP;
            if (low[r] > from) from = low[r];
            if (high[r] < to) to = high[r];
        }
        const void *keys = cached_at(job->k, halves, (size_t)base * (size_t)D);
        const void *values = cached_at(job->v, halves, (size_t)base * (size_t)D);
        int blocks = (high[rows - 1] + PX_KEY_BLOCK - 1) / PX_KEY_BLOCK;
        scores_some(rows, scores, q, keys, halves, blocks, D);
        for (int r = 0; r < rows; r++) {
            px_real *sum = sums + r * PX_MAX_HEAD_DIM;
            px_real factor = weigh(scores + r * PX_KEY_GROUP, blocks, low[r], high[r], &largest[r], &total[r]);
            for (int d = 0; factor != 1 && d < D; d++) sum[d] *= factor;
        }
        if (from > to) from = to;
        for (int r = 0; r < rows; r++)
            add_values_some(1, sums + r * PX_MAX_HEAD_DIM, scores + r * PX_KEY_GROUP, values, halves, low[r], from, D);
        add_values_some(rows, sums, scores, values, halves, from, to, D);
        for (int r = 0; r < rows; r++)
            add_values_some(1, sums + r * PX_MAX_HEAD_DIM, scores + r * PX_KEY_GROUP, values, halves, to > from ? to : from,
                            high[r], D);
    }
    for (int r = 0; r < rows; r++) {
        px_real *out = job->out + (size_t)(row + r) * job->ldout;
        for (int d = 0; d < D; d++) out[d] = sums[r * PX_MAX_HEAD_DIM + d] / total[r];
        if (job->lse) job->lse[(size_t)(row + r) * job->ldlse] = largest[r] + (px_real)log((double)total[r]);
    }
}

/* Rows from `row` on that can be a tile. */
static int tile_height(const px_head_job *job, int row, int end)
{
    int position = job->position + row, height = end - row < PX_QUERY_TILE ? end - row : PX_QUERY_TILE;
    if (job->advance == 0) return height;
    if (position % PX_QUERY_TILE != 0 || height < PX_QUERY_TILE) return 1;
    if (job->window <= 0 || position + PX_QUERY_TILE <= job->window) return height;
    int last = position + PX_QUERY_TILE - job->window;
    int lowest = position >= job->window ? position - job->window + 1 : 0;
    return lowest / PX_KEY_GROUP == last / PX_KEY_GROUP && job->window > PX_QUERY_TILE ? height : 1;
}

static void attention_rows(const px_head_job *job, int begin, int end, px_real *work)
{
    for (int row = begin, rows; row < end; row += rows) {
        rows = tile_height(job, row, end);
        attention_tile(job, row, rows, work);
    }
}

static void row_dots(px_real *dots, const px_real *a, const px_real *b, size_t ld, int rows, int D)
{
    for (int r = 0; r < rows; r++, a += ld, b += ld) {
        px_lanes sum = px_lanes_set(0);
        for (int d = 0; d < D; d += PX_LANES) sum = px_lanes_fma(px_lanes_read(a, d, D), px_lanes_read(b, d, D), sum);
        dots[r] = px_lanes_sum(sum);
    }
}

static void key_block(void *to, bool halves, const px_real *k, size_t ld, int D)
{
    enum { SOME = 64 };
    px_real block[SOME * PX_KEY_BLOCK];
    if (!halves) pack_rows(to, k, ld, PX_KEY_BLOCK, D, PX_KEY_BLOCK);
    for (int d = 0; halves && d < D; d += SOME) {
        int some = D - d < SOME ? D - d : SOME;
        pack_rows(block, k + d, ld, PX_KEY_BLOCK, some, PX_KEY_BLOCK);
        narrow((uint16_t *)to + d * PX_KEY_BLOCK, block, (size_t)some * PX_KEY_BLOCK);
    }
}

static void attention_scores(px_real *p, px_real *ds, size_t ld, const px_real *lse, size_t ldlse, const px_real *delta,
                             int rows, int columns, int position, int key, int window, px_real scale)
{
    px_lanes factor = px_lanes_set(scale), zero = px_lanes_set(0);
    for (int r = 0; r < rows; r++) {
        int seen = position + r + 1 - key, bottom = window > 0 ? seen - window : 0; /* keys [bottom, seen) of the block */
        px_lanes base = px_lanes_set(lse[(size_t)r * ldlse]), shift = px_lanes_set(delta[r]);
        px_real *prow = p + (size_t)r * ld, *drow = ds + (size_t)r * ld;
        for (int j = 0; j < columns; j += PX_LANES) {
            px_lanes u = px_lanes_sub(px_lanes_mul(px_lanes_read(prow, j, columns), factor), base);
            px_lanes w = px_lanes_within(px_lanes_exp(u), zero, bottom - j, seen - j);
            px_lanes d = px_lanes_mul(px_lanes_mul(w, px_lanes_sub(px_lanes_read(drow, j, columns), shift)), factor);
            px_lanes_write(prow, w, j, columns);
            px_lanes_write(drow, px_lanes_within(d, zero, bottom - j, seen - j), j, columns);
        }
    }
}
