#include "phalanx/dist.h"
#include "phalanx/rlhf.h"

static int next_power_of_two(int n)
{
    int p = 1;
    while (p < n) {
        p *= 2;
    }
    return p;
}

int px_work_leaves(bool exact, int size)
{
    if (!exact) {
        return size;
    }
    int leaves = next_power_of_two(size);
    return leaves < PX_EXACT_LEAVES ? PX_EXACT_LEAVES : leaves;
}

int px_work_depth(bool exact, int size)
{
    int each = (px_work_leaves(exact, size) + size - 1) / size, depth = 1;
    while (each > 1) {
        each = (each + 1) / 2;
        depth++;
    }
    return depth;
}

void px_work_plan(px_work *work, const int32_t *tokens, int64_t items, bool exact, int rank, int size)
{
    int leaves = px_work_leaves(exact, size);
    PX_CHECK(leaves <= PX_MAX_LEAVES);
    int64_t total = 0;
    for (int64_t i = 0; i < items; i++) {
        total += tokens[i];
    }
    int64_t before = 0, i = 0;
    for (int l = 0; l < leaves; l++) { /* leaf l starts where a share of l / leaves of the tokens lies behind */
        while (i < items && before * leaves < total * l) {
            before += tokens[i++];
        }
        work->first[l] = i;
    }
    work->first[leaves] = items;
    work->items = items;
    work->leaves = leaves;
    int64_t first, count;
    px_share(leaves, rank, size, &first, &count);
    work->mine = (int)first;
    work->mine_count = (int)count;
}

void px_work_gather(const px_work *work, double *table, int columns)
{
    int size = px_dist_size();
    int64_t row = (int64_t)sizeof(double) * columns;
    for (int r = 0; size > 1 && r < size; r++) {
        int64_t leaf, count;
        px_share(work->leaves, r, size, &leaf, &count);
        int64_t from = work->first[leaf], to = work->first[leaf + count];
        px_bcast(table + from * columns, (size_t)((to - from) * row), r);
    }
}
