/* The ordered sum of gradients over the ranks of the job, under what the medium between them moves. */
#include "bench.h"
#include "phalanx/dist.h"

#include <math.h>
#include <stdio.h>

enum { COUNT = 1 << 24, PIECE = 1 << 22, OUTBOX = 4 }; /* floats: 64 MiB of gradients; bytes of a message */

/* Seconds to send `bytes` to the rank after this one while as many come from the one before. Who waits asks again at once: a
 * nap would be part of what is measured. */
static double ring_seconds(px_post *post, int to, const char *data, size_t bytes)
{
    enum { SPINS = 1 << 20 };
    size_t sent = 0, taken = 0, got;
    int from;
    double start = px_now(), waited = 0.0;
    for (long poll = 0; sent < bytes || taken < bytes; poll++) {
        size_t piece = bytes - sent < PIECE ? bytes - sent : PIECE;
        bool moved = sent < bytes && px_post_send(post, to, "", 0, data + sent, piece);
        sent += moved ? piece : 0;
        while (px_post_take(post, &from, &got) != NULL) {
            taken += got;
            moved = true;
        }
        if (moved) {
            poll = 0;
            waited = 0.0;
        } else if (poll > SPINS) { /* which also sees to it that a neighbour who died is noticed */
            px_wait_nap(poll - SPINS, &waited);
        }
    }
    return px_now() - start;
}

/* GB/s that plain messages move between neighbours, all at once: out of a rank, and as much into it. The slowest counts. */
static px_status message_rate(const float *values, int64_t trials, double *rate)
{
    int rank = px_dist_rank(), size = px_dist_size();
    int ranks[2] = {(rank + 1) % size, (rank + size - 1) % size}, peers = size == 2 ? 1 : 2;
    px_post *post = NULL;
    PX_TRY(px_agree(px_post_open(&post, ranks, peers, PIECE, OUTBOX)));
    double seconds = INFINITY;
    for (int64_t trial = 0; trial < trials; trial++) {
        px_barrier();
        double once = ring_seconds(post, 0, (const char *)values, COUNT * sizeof *values);
        px_max_f64(&once, 1);
        seconds = fmin(seconds, once);
    }
    px_post_close(post);
    *rate = 1e-9 * COUNT * sizeof *values / seconds;
    return PX_OK;
}

/* The least that has to move, and how fast it can. On one node each rank reads its share of all vectors, writes the sum, and
 * copies what the others have summed; between nodes it sends all but its share twice (Patarasuk and Yuan 2009). */
static px_status set_roof(px_bench *b, const float *values, px_bench_row *row)
{
    double n = px_dist_size(), bytes = COUNT * sizeof *values;
    if (px_dist_local_size() == px_world_size()) {
        px_barrier();
        row->bytes_roof = px_memory_rate((int)b->threads, true);
        px_sum_f64(&row->bytes_roof, 1);
        row->bytes = bytes * (3.0 * n - 1.0);
        return PX_OK;
    }
    row->medium = "messages";
    row->bytes = 2.0 * bytes * (n - 1.0) / n;
    return message_rate(values, b->trials, &row->bytes_roof);
}

px_status px_bench_allreduce(px_bench *b)
{
    if (px_dist_size() < 2) {
        return px_fail(PX_USAGE, "bench: allreduce sums over the ranks of mpirun; here is one");
    }
    float *values = px_alloc_array(COUNT, sizeof *values, "gradients");
    PX_TRY(px_agree(values != NULL ? px_sum_f32_tree_open() : px_error_code()));
    double best = INFINITY;
    for (int64_t trial = 0; trial < b->trials; trial++) {
        px_barrier();
        double start = px_now();
        px_sum_f32_tree(values, COUNT);
        double seconds = px_now() - start;
        px_max_f64(&seconds, 1);
        best = fmin(best, seconds);
    }
    char shape[64];
    snprintf(shape, sizeof shape, "64MiB, %d ranks", px_dist_size());
    px_bench_row row = {.what = "allreduce", .shape = shape, .seconds = best,
                        .flops = (double)COUNT * (px_dist_size() - 1)};
    px_status status = set_roof(b, values, &row);
    status = status == PX_OK ? px_bench_print(b, &row) : status;
    px_free(values);
    return status;
}
