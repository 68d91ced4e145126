/* Sum of float vectors over ranks in one fixed tree: neighbours first, so that rank blocks are the subtrees of the same
 * tree that one rank would use over all leaves. Addition commutes bit for bit, so both partners get the same result. */
#include "phalanx/dist.h"
#include "world.h"

enum { SEGMENT = 1 << 20, TAG = 71 };

static float *inbox; /* [SEGMENT], kept for the life of the process */

static void exchange(const float *out, int out_count, float *in, int in_count, int partner)
{
    MPI_Request requests[2];
    MPI_Irecv(in, in_count, MPI_FLOAT, partner, TAG, px_group_comm(), &requests[0]);
    MPI_Isend(out, out_count, MPI_FLOAT, partner, TAG, px_group_comm(), &requests[1]);
    px_wait_all(requests, 2);
}

static void add(float *restrict to, const float *restrict from, int count)
{
    for (int i = 0; i < count; i++) {
        to[i] += from[i];
    }
}

/* Recursive halving, then recursive doubling (Rabenseifner 2004): each rank moves 2 (1 - 1/size) of the segment. */
static void sum_power_of_two(float *values, int count, int rank, int size)
{
    int first[32], length[32], steps = 0, at = 0, n = count;
    for (int distance = 1; distance < size; distance *= 2, steps++) {
        int partner = rank ^ distance, low = n / 2;
        bool upper = (rank & distance) != 0;
        first[steps] = at;
        length[steps] = n;
        int keep_at = upper ? at + low : at, keep = upper ? n - low : low;
        int give_at = upper ? at : at + low, give = n - keep;
        exchange(values + give_at, give, inbox, keep, partner);
        add(values + keep_at, inbox, keep);
        at = keep_at;
        n = keep;
    }
    for (int distance = size / 2; distance > 0; distance /= 2) {
        steps--;
        int partner = rank ^ distance;
        int other_at = at == first[steps] ? at + n : first[steps];
        exchange(values + at, n, values + other_at, length[steps] - n, partner);
        at = first[steps];
        n = length[steps];
    }
}

/* Any size: binomial tree to rank 0 with the lower rank adding the higher, then a broadcast. */
static void sum_any(float *values, int count, int rank, int size)
{
    for (int distance = 1; distance < size; distance *= 2) {
        MPI_Request request;
        if (rank & distance) {
            MPI_Isend(values, count, MPI_FLOAT, rank - distance, TAG, px_group_comm(), &request);
            px_wait_all(&request, 1);
            break;
        }
        if (rank + distance < size) {
            MPI_Irecv(inbox, count, MPI_FLOAT, rank + distance, TAG, px_group_comm(), &request);
            px_wait_all(&request, 1);
            add(values, inbox, count);
        }
    }
    px_bcast(values, (size_t)count * sizeof *values, 0);
}

size_t px_sum_f32_tree_bytes(void)
{
    return px_dist_size() > 1 && inbox == NULL ? SEGMENT * sizeof *inbox : 0;
}

px_status px_sum_f32_tree_open(void)
{
    size_t bytes = px_sum_f32_tree_bytes();
    if (bytes > 0) {
        inbox = px_alloc(bytes, "the receive buffer of gradient sums");
    }
    return bytes == 0 || inbox != NULL ? PX_OK : px_error_code();
}

void px_sum_f32_tree(float *values, size_t count)
{
    int rank = px_dist_rank(), size = px_dist_size();
    if (size == 1) {
        return;
    }
    PX_CHECK(inbox != NULL);
    for (size_t at = 0; at < count; at += SEGMENT) {
        int n = (int)(count - at < SEGMENT ? count - at : SEGMENT);
        if ((size & (size - 1)) == 0) {
            sum_power_of_two(values + at, n, rank, size);
        } else {
            sum_any(values + at, n, rank, size);
        }
    }
}
