/* Sum of float vectors over ranks in one fixed tree: neighbours first, so that rank blocks are the subtrees of the same
 * tree that one rank would use over all leaves. Addition commutes bit for bit, so both partners get the same result.
 *
 * The vector is summed in segments from its end, as they become ready; some are under way at once, each in a lane with a tag
 * of its own. Every call moves the lanes on as far as the messages that have come allow, and only the last one waits. */
#include "phalanx/dist.h"
#include "world.h"

enum { SEGMENT = 1 << 18, LANES = 16, TAG = 71, MOVES = 64 };

typedef struct move { /* places in the segment */
    int partner, out, out_count, in, in_count;
    bool adds; /* what comes is added to what is there */
} move;

typedef struct lane {
    float *values; /* of the segment; NULL: idle */
    int count, moves, at; /* at: the move under way */
    move plan[MOVES];
    MPI_Request requests[2];
} lane;

static float *inbox; /* [LANES][SEGMENT], kept for the life of the process */

static struct {
    float *values; /* NULL: no sum is under way */
    size_t ready;  /* values from here on will not change any more */
    size_t taken;  /* from here on they are in a lane, or summed */
    int next;      /* lane of the next segment: the same on all ranks */
    double began;  /* px_wall_time() of the first segment; 0: none has begun */
    lane lanes[LANES];
} sum;

static void add(float *restrict to, const float *restrict from, int count)
{
    for (int i = 0; i < count; i++) {
        to[i] += from[i];
    }
}

/* Recursive halving, then recursive doubling (Rabenseifner 2004): each rank moves 2 (1 - 1/size) of the segment. */
static int plan_power_of_two(move *plan, int count, int rank, int size)
{
    int first[32], length[32], steps = 0, at = 0, n = count, moves = 0;
    for (int distance = 1; distance < size; distance *= 2, steps++) {
        int low = n / 2;
        bool upper = (rank & distance) != 0;
        first[steps] = at;
        length[steps] = n;
        int keep_at = upper ? at + low : at, keep = upper ? n - low : low;
        int give_at = upper ? at : at + low;
        plan[moves++] = (move){rank ^ distance, give_at, n - keep, keep_at, keep, true};
        at = keep_at;
        n = keep;
    }
    for (int distance = size / 2; distance > 0; distance /= 2) {
        steps--;
        int other_at = at == first[steps] ? at + n : first[steps];
        plan[moves++] = (move){rank ^ distance, at, n, other_at, length[steps] - n, false};
        at = first[steps];
        n = length[steps];
    }
    return moves;
}

/* Any size: binomial tree to rank 0 with the lower rank adding the higher, and the same way back. */
static int plan_any(move *plan, int count, int rank, int size)
{
    int moves = 0, distance = 1;
    for (; distance < size && (rank & distance) == 0; distance *= 2) {
        if (rank + distance < size) {
            plan[moves++] = (move){rank + distance, 0, 0, 0, count, true};
        }
    }
    if (rank > 0) {
        plan[moves++] = (move){rank - distance, 0, count, 0, 0, false};
        plan[moves++] = (move){rank - distance, 0, 0, 0, count, false};
    }
    for (distance /= 2; distance > 0; distance /= 2) {
        if (rank + distance < size) {
            plan[moves++] = (move){rank + distance, 0, count, 0, 0, false};
        }
    }
    return moves;
}

static void begin_move(lane *l)
{
    const move *m = &l->plan[l->at];
    int number = (int)(l - sum.lanes);
    float *in = m->adds ? inbox + (size_t)number * SEGMENT : l->values + m->in;
    l->requests[0] = l->requests[1] = MPI_REQUEST_NULL;
    if (m->in_count > 0) {
        MPI_Irecv(in, m->in_count, MPI_FLOAT, m->partner, TAG + number, px_group_comm(), &l->requests[0]);
    }
    if (m->out_count > 0) {
        MPI_Isend(l->values + m->out, m->out_count, MPI_FLOAT, m->partner, TAG + number, px_group_comm(), &l->requests[1]);
    }
}

/* The move under way is over. */
static void end_move(lane *l)
{
    const move *m = &l->plan[l->at];
    if (m->adds) {
        add(l->values + m->in, inbox + (size_t)(l - sum.lanes) * SEGMENT, m->in_count);
    }
    if (++l->at < l->moves) {
        begin_move(l);
    } else {
        l->values = NULL;
    }
}

static void begin_segment(lane *l)
{
    int rank = px_dist_rank(), size = px_dist_size();
    size_t count = sum.taken < SEGMENT ? sum.taken : SEGMENT;
    sum.taken -= count;
    sum.next = (sum.next + 1) % LANES;
    l->values = sum.values + sum.taken;
    l->count = (int)count;
    l->moves = (size & (size - 1)) == 0 ? plan_power_of_two(l->plan, l->count, rank, size)
                                        : plan_any(l->plan, l->count, rank, size);
    l->at = 0;
    sum.began = sum.began > 0.0 ? sum.began : px_wall_time();
    begin_move(l);
}

/* One look at every lane, without waiting; true: something moved. */
static bool advance(void)
{
    bool moved = false;
    for (int i = 0; i < LANES; i++) {
        lane *l = &sum.lanes[i];
        if (l->values != NULL && px_all_done(l->requests, 2)) {
            end_move(l);
            moved = true;
        }
    }
    while (sum.taken > 0 && sum.lanes[sum.next].values == NULL &&
           sum.ready <= (sum.taken < SEGMENT ? 0 : sum.taken - SEGMENT)) {
        begin_segment(&sum.lanes[sum.next]);
        moved = true;
    }
    return moved;
}

static bool all_summed(void)
{
    bool busy = sum.taken > 0;
    for (int i = 0; i < LANES; i++) {
        busy = busy || sum.lanes[i].values != NULL;
    }
    return !busy;
}

size_t px_sum_f32_tree_bytes(void)
{
    return px_dist_size() > 1 && inbox == NULL ? (size_t)LANES * SEGMENT * sizeof *inbox : 0;
}

px_status px_sum_f32_tree_open(void)
{
    size_t bytes = px_sum_f32_tree_bytes();
    if (bytes > 0) {
        inbox = px_alloc(bytes, "the receive buffer of gradient sums");
    }
    return bytes == 0 || inbox != NULL ? PX_OK : px_error_code();
}

void px_sum_f32_tree_begin(float *values, size_t count)
{
    PX_CHECK(sum.values == NULL && (px_dist_size() == 1 || inbox != NULL));
    sum.values = values;
    sum.ready = count;
    sum.taken = px_dist_size() > 1 ? count : 0;
    sum.next = 0;
    sum.began = 0.0;
}

void px_sum_f32_tree_ready(size_t first)
{
    PX_CHECK(sum.values != NULL && first <= sum.ready);
    sum.ready = first;
    while (advance()) {
    }
}

void px_sum_f32_tree_end(void)
{
    double waited = 0.0, called = px_wall_time();
    if (sum.began > 0.0) {
        px_timeline_span(PX_ROW_SUMS, "sum, while backward goes on", sum.began);
    }
    sum.ready = 0;
    for (long poll = 0; !all_summed(); poll++) {
        if (advance()) {
            poll = 0;
            waited = 0.0;
        } else {
            px_wait_nap(poll, &waited);
        }
    }
    sum.values = NULL;
    if (px_dist_size() > 1) {
        px_timeline_span(PX_ROW_SUMS, "sum, waited for", called);
    }
}

void px_sum_f32_tree(float *values, size_t count)
{
    px_sum_f32_tree_begin(values, count);
    px_sum_f32_tree_end();
}
