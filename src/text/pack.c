/* Best fit decreasing: rows by falling length, each into the fullest bin that still holds it. */
#include "phalanx/text.h"

#include <stdlib.h>

typedef struct px_item {
    int32_t length;
    int64_t index;
} px_item;

/* Open bins by free space. The bins of one space form a leftist heap by number (Crane 1972), so that the lowest comes
 * first; a binary tree of counts over the spaces finds the smallest space that is large enough. */
typedef struct px_bins {
    int32_t *root;                 /* [capacity + 1] heap of each space; -1: none */
    int32_t *left, *right, *rank;  /* [bins] */
    int32_t *open;                 /* [2 * leaves] bins below each node of the tree */
    int64_t leaves;
    int64_t count;                 /* bins so far */
} px_bins;

static int32_t merge(px_bins *bins, int32_t a, int32_t b) { /* depth: logarithm of the size */
    if (a < 0) return b;
    if (b < 0) return a;
    if (b < a) {
        int32_t swap = a;
        a = b;
        b = swap;
    }
    bins->right[a] = merge(bins, bins->right[a], b);
    int32_t left = bins->left[a], right = bins->right[a];
    if (left < 0 || bins->rank[left] < bins->rank[right]) {
        bins->left[a] = right;
        bins->right[a] = left;
    }
    bins->rank[a] = bins->right[a] < 0 ? 1 : bins->rank[bins->right[a]] + 1;
    return a;
}

static void count_space(px_bins *bins, int64_t space, int32_t change)
{
    for (int64_t node = bins->leaves + space; node > 0; node /= 2) bins->open[node] += change;
}

static void put(px_bins *bins, int32_t bin, int64_t space)
{
    bins->left[bin] = bins->right[bin] = -1;
    bins->rank[bin] = 1;
    bins->root[space] = merge(bins, bins->root[space], bin);
    count_space(bins, space, 1);
}

static int32_t take(px_bins *bins, int64_t space)
{
    int32_t bin = bins->root[space];
    bins->root[space] = merge(bins, bins->left[bin], bins->right[bin]);
    count_space(bins, space, -1);
    return bin;
}

/* The smallest space >= least that has a bin; -1: none. */
static int64_t find_space(const px_bins *bins, int64_t least)
{
    int64_t node = bins->leaves + least;
    if (bins->open[node] == 0) {
        while (node > 1 && (node % 2 == 1 || bins->open[node + 1] == 0)) node /= 2;
        if (node <= 1) return -1;
        node++;
        while (node < bins->leaves) node = bins->open[2 * node] > 0 ? 2 * node : 2 * node + 1;
    }
    return node - bins->leaves;
}

static int compare_items(const void *a, const void *b)
{
    const px_item *x = a, *y = b;
    if (x->length != y->length) return x->length > y->length ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static bool bins_init(px_bins *bins, int64_t count, int capacity)
{
    bins->leaves = 1;
    while (bins->leaves <= capacity) bins->leaves *= 2;
    bins->root = px_alloc_array((size_t)capacity + 1, sizeof *bins->root, "packing");
    bins->left = px_alloc_array((size_t)count, sizeof *bins->left, "packing");
    bins->right = px_alloc_array((size_t)count, sizeof *bins->right, "packing");
    bins->rank = px_alloc_array((size_t)count, sizeof *bins->rank, "packing");
    bins->open = px_alloc_array((size_t)(2 * bins->leaves), sizeof *bins->open, "packing");
    if (!bins->root || !bins->left || !bins->right || !bins->rank || !bins->open) return false;
    for (int i = 0; i <= capacity; i++) bins->root[i] = -1;
    return true;
}

static void bins_free(px_bins *bins)
{
    px_free(bins->root);
    px_free(bins->left);
    px_free(bins->right);
    px_free(bins->rank);
    px_free(bins->open);
}

int64_t px_pack(const int32_t *lengths, int64_t count, int capacity, int32_t *bin)
{
    px_bins bins = {0};
    if (count == 0) return 0;
    for (int64_t i = 0; i < count; i++)
        if (lengths[i] < 0 || lengths[i] > capacity) {
            px_fail(PX_DATA, "row %lld has %d tokens; valid is up to %d in a packed sequence", (long long)i, lengths[i],
                    capacity);
            return -1;
        }
    px_item *items = px_alloc_array((size_t)count, sizeof *items, "packing");
    if (!items || !bins_init(&bins, count, capacity)) {
        px_free(items);
        bins_free(&bins);
        return -1;
    }
    for (int64_t i = 0; i < count; i++) items[i] = (px_item){lengths[i], i};
    qsort(items, (size_t)count, sizeof *items, compare_items);
    for (int64_t i = 0; i < count; i++) {
        int64_t space = find_space(&bins, items[i].length);
        int32_t chosen = space < 0 ? (int32_t)bins.count++ : take(&bins, space);
        put(&bins, chosen, (space < 0 ? capacity : space) - items[i].length);
        bin[items[i].index] = chosen;
    }
    px_free(items);
    bins_free(&bins);
    return bins.count;
}
