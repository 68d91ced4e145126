#include "phalanx/text.h"

px_status px_order_init(px_order *order, int64_t rows, bool shuffle, px_rng rng) {
    *order = (px_order){.rows = rows, .shuffle = shuffle, .rng = rng, .epoch = -1};
    if (rows < 1) return px_fail(PX_DATA, "a data set without rows has no order; valid is one row or more");
    if (rows > UINT32_MAX)
        return px_fail(PX_DATA, "%lld rows; valid is up to %lld in one data set", (long long)rows,
                       (long long)UINT32_MAX);
    if (!shuffle) return PX_OK;
    order->permutation = px_alloc_array((size_t)rows, sizeof *order->permutation, "order of a data set");
    return order->permutation ? PX_OK : px_error_code();
}

void px_order_free(px_order *order) {
    px_free(order->permutation);
    *order = (px_order){.epoch = -1};
}

int64_t px_order_row(px_order *order, int64_t position) {
    PX_CHECK(order->rows > 0 && position >= 0);
    int64_t epoch = position / order->rows, place = position % order->rows;
    if (!order->shuffle) return place;
    if (epoch != order->epoch) {
        px_rng_permutation(&order->rng, (uint32_t)epoch, (uint32_t)(epoch >> 32), order->rows, order->permutation);
        order->epoch = epoch;
    }
    return order->permutation[place];
}
