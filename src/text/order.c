#include "phalanx/text.h"

#include <math.h>

/* Longer epochs than this have no table of their permutation: 8 bytes a place in every rank would be too much. Part of
 * what a seed means. */
#define PX_ORDER_TABLE ((int64_t)1 << 22)

static int64_t share(const px_part *part)
{
    int64_t places = (int64_t)llround(part->weight * (double)part->count);
    return part->count < 1 ? 0 : places > 1 ? places : 1;
}

int64_t px_parts_epoch(const px_part *parts, int count)
{
    int64_t length = 0;
    for (int i = 0; i < count; i++) length += share(&parts[i]);
    return length;
}

px_status px_order_init(px_order *order, const px_part *parts, int part_count, bool shuffle, px_rng rng)
{
    int64_t rows = 0;
    for (int i = 0; i < part_count; i++) rows += parts[i].count;
    *order = (px_order){.parts = parts, .part_count = part_count, .shuffle = shuffle, .rng = rng, .epoch = -1,
                        .length = px_parts_epoch(parts, part_count)};
    if (rows < 1) return px_fail(PX_DATA, "a data set without rows has no order; valid is one row or more");
    if (rows > UINT32_MAX || order->length > UINT32_MAX)
        return px_fail(PX_DATA, "%lld rows, %lld in an epoch by their weights; valid is up to %lld in one data set",
                       (long long)rows, (long long)order->length, (long long)UINT32_MAX);
    if (!shuffle || order->length > PX_ORDER_TABLE) return PX_OK;
    order->permutation = px_alloc_array((size_t)order->length, sizeof *order->permutation, "order of a data set");
    return order->permutation ? PX_OK : px_error_code();
}

void px_order_free(px_order *order)
{
    px_free(order->permutation);
    *order = (px_order){.epoch = -1};
}

static int64_t greatest_divisor(int64_t a, int64_t b)
{
    while (b > 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Multiples of a number near rows / golden ratio that has no divisor in common with rows reach every row once, and any
 * run of them lies evenly over all. */
static int64_t stride_of(int64_t rows)
{
    int64_t stride = (int64_t)((double)rows * 0.6180339887498949);
    while (stride < 1 || greatest_divisor(rows, stride) != 1) stride++;
    return stride;
}

static int64_t row_at(const px_order *order, int64_t epoch, int64_t place)
{
    int64_t before = 0;
    for (int i = 0; i < order->part_count; i++) {
        int64_t rows = order->parts[i].count, places = share(&order->parts[i]);
        if (place < places) {
            int64_t at = (epoch * places + place) % rows;
            bool shared = order->shuffle && places % rows != 0;
            return before + (shared ? at * stride_of(rows) % rows : at);
        }
        place -= places;
        before += rows;
    }
    px_bug(__FILE__, __LINE__, "a place beyond the epoch");
}

size_t px_order_bytes(const px_part *parts, int count, bool shuffle)
{
    int64_t length = px_parts_epoch(parts, count);
    return shuffle && length <= PX_ORDER_TABLE ? (size_t)length * sizeof(int64_t) : 0;
}

/* A permutation without a table: a Feistel network of six rounds on the smallest even number of bits that holds every
 * place, gone through again until it ends inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). */
static int64_t scatter(const px_order *order, int64_t epoch, int64_t place)
{
    int half = 1;
    while ((INT64_C(1) << (2 * half)) < order->length) half++;
    uint32_t mask = ((uint32_t)1 << half) - 1, left, right, bits[4];
    do {
        left = (uint32_t)(place >> half) & mask;
        right = (uint32_t)place & mask;
        for (uint32_t round = 0; round < 6; round++) {
            uint32_t counter[4] = {right, round, (uint32_t)epoch, (uint32_t)(epoch >> 32)}, before = right;
            px_rng_bits(&order->rng, counter, bits);
            right = left ^ (bits[0] & mask);
            left = before;
        }
        place = (int64_t)left << half | right;
    } while (place >= order->length);
    return place;
}

int64_t px_order_row(px_order *order, int64_t position)
{
    PX_CHECK(order->length > 0 && position >= 0);
    int64_t epoch = position / order->length, place = position % order->length;
    if (!order->shuffle) return row_at(order, epoch, place);
    if (!order->permutation) return row_at(order, epoch, scatter(order, epoch, place));
    if (epoch != order->epoch) {
        px_rng_permutation(&order->rng, (uint32_t)epoch, (uint32_t)(epoch >> 32), order->length, order->permutation);
        order->epoch = epoch;
    }
    return row_at(order, epoch, order->permutation[place]);
}
