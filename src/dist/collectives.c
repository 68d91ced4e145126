#include "phalanx/dist.h"
#include "world.h"

#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 8192, CHUNK_BYTES = 1 << 30 };

static void wait_one(MPI_Request request)
{
    px_wait_all(&request, 1);
}

void px_barrier(void)
{
    if (px_dist_size() > 1) {
        MPI_Request request;
        MPI_Ibarrier(px_group_comm(), &request);
        wait_one(request);
    }
}

void px_bcast(void *data, size_t bytes, int root)
{
    if (px_dist_size() == 1) {
        return;
    }
    for (size_t at = 0; at < bytes; at += CHUNK_BYTES) {
        size_t count = bytes - at < CHUNK_BYTES ? bytes - at : CHUNK_BYTES;
        MPI_Request request;
        MPI_Ibcast((char *)data + at, (int)count, MPI_BYTE, root, px_group_comm(), &request);
        wait_one(request);
    }
}

px_status px_agree(px_status status)
{
    if (px_dist_size() == 1) {
        return status;
    }
    struct {
        int code, rank;
    } mine = {(int)status, px_dist_rank()}, worst;
    MPI_Request request;
    MPI_Iallreduce(&mine, &worst, 1, MPI_2INT, MPI_MAXLOC, px_group_comm(), &request);
    wait_one(request);
    if (worst.code == PX_OK) {
        return PX_OK;
    }
    struct {
        char where[160], text[TEXT_MAX];
    } error = {0};
    if (px_dist_rank() == worst.rank) {
        snprintf(error.where, sizeof error.where, "%s", px_error_where());
        snprintf(error.text, sizeof error.text, "%s", px_error_text());
    }
    px_bcast(&error, sizeof error, worst.rank);
    if (px_dist_rank() != worst.rank) {
        px_error_set((px_status)worst.code, error.where, error.text);
    }
    return (px_status)worst.code;
}

void px_gather_i64(int64_t mine, int64_t *counts)
{
    if (px_dist_size() == 1) {
        counts[0] = mine;
        return;
    }
    MPI_Request request;
    MPI_Iallgather(&mine, 1, MPI_INT64_T, counts, 1, MPI_INT64_T, px_group_comm(), &request);
    wait_one(request);
}

void px_gather_bytes(const void *mine, void *out, const int64_t *bytes)
{
    int size = px_dist_size(), rank = px_dist_rank();
    int64_t at = 0;
    for (int r = 0; r < rank; r++) {
        at += bytes[r];
    }
    if ((const char *)mine != (char *)out + at && bytes[rank] > 0) {
        memmove((char *)out + at, mine, (size_t)bytes[rank]);
    }
    at = 0;
    for (int r = 0; r < size; r++) {
        px_bcast((char *)out + at, (size_t)bytes[r], r);
        at += bytes[r];
    }
}

void px_gather_shares(void *rows, size_t row_bytes, int64_t total)
{
    int size = px_dist_size();
    for (int r = 0; size > 1 && r < size; r++) {
        int64_t first, count;
        px_share(total, r, size, &first, &count);
        px_bcast((char *)rows + (size_t)first * row_bytes, (size_t)count * row_bytes, r);
    }
}

static void reduce(void *values, int count, MPI_Datatype type, MPI_Op op)
{
    if (px_dist_size() > 1) {
        MPI_Request request;
        MPI_Iallreduce(MPI_IN_PLACE, values, count, type, op, px_group_comm(), &request);
        wait_one(request);
    }
}

void px_sum_i64(int64_t *values, int count)
{
    reduce(values, count, MPI_INT64_T, MPI_SUM);
}

void px_max_f64(double *values, int count)
{
    reduce(values, count, MPI_DOUBLE, MPI_MAX);
}

void px_min_f64(double *values, int count)
{
    reduce(values, count, MPI_DOUBLE, MPI_MIN);
}

void px_sum_f64(double *values, int count)
{
    enum { ON_STACK = 1 << 14 };
    int size = px_dist_size(), at_once = ON_STACK / size;
    if (size == 1) {
        return;
    }
    PX_CHECK(at_once > 0);
    for (int at = 0; at < count; at += at_once) {
        double all[ON_STACK];
        int n = count - at < at_once ? count - at : at_once;
        MPI_Request request;
        MPI_Iallgather(values + at, n, MPI_DOUBLE, all, n, MPI_DOUBLE, px_group_comm(), &request);
        wait_one(request);
        for (int i = 0; i < n; i++) {
            values[at + i] = all[i];
            for (int r = 1; r < size; r++) {
                values[at + i] += all[r * n + i];
            }
        }
    }
}

bool px_same_everywhere(uint64_t hash)
{
    uint64_t pair[2] = {hash, ~hash};
    reduce(pair, 2, MPI_UINT64_T, MPI_MAX);
    return pair[0] == ~pair[1];
}

/* From a rank that was asked to stop to those that were not. */
static void share_reason(void)
{
    static char heard[96]; /* outlives the request */
    char text[sizeof heard] = "";
    int asked = px_stop_level() > 0 ? px_dist_rank() : -1;
    reduce(&asked, 1, MPI_INT, MPI_MAX);
    if (asked == px_dist_rank() && px_stop_reason() != NULL) {
        snprintf(text, sizeof text, "%s", px_stop_reason());
        if (strncmp(text, "SIG", 3) == 0 && strstr(text, " on rank ") == NULL) {
            snprintf(text, sizeof text, "%.60s on rank %d", px_stop_reason(), px_world_rank());
        }
    }
    px_bcast(text, sizeof text, asked);
    if (px_stop_level() == 0) {
        memcpy(heard, text, sizeof heard);
        px_stop_request(heard);
    }
}

int px_stop_agreed(void)
{
    int level = px_stop_level();
    reduce(&level, 1, MPI_INT, MPI_MAX);
    if (level > 0) {
        share_reason();
    }
    return level;
}
