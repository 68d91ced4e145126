#include "lm_batches.h"

#include <math.h>

enum { STRIDE = 64 };             /* rows that are searched for a piece: a table of all pieces would not stay small */
enum { WINDOW = 64 };             /* steps that are packed together, about; part of what a seed means */
enum { WINDOW_PLACES = 1 << 21 }; /* of a window at most */

int64_t px_passes(double epochs, int64_t rows)
{
    return (int64_t)ceil(epochs * (double)rows - 1e-9);
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

int px_piece_targets(const px_row *row, const px_piece *p)
{
    int count = 0, first = p->offset + 1, end = p->offset + p->length;
    if (row->mask == NULL) {
        first = row->prompt_length > first ? row->prompt_length : first;
        return end > first ? end - first : 0;
    }
    for (int t = first; t < end; t++) {
        count += row->mask[t];
    }
    return count;
}

/* Texts longer than max_tokens become pieces of max_tokens; a last piece of one token has nothing to predict. Returns how
 * many a row gives; *wanted becomes the one with number `which`. */
static int64_t cut_row(const px_lm_config *config, int64_t r, int64_t which, px_piece *wanted, int32_t *shortest)
{
    px_row row;
    int64_t n = 0;
    px_dataset_row(config->train, r, &row);
    for (int at = 0, limit = config->max_tokens; at < row.length; at += limit) {
        px_piece p = {r, at, row.length - at < limit ? row.length - at : limit};
        if (p.length >= 2 && px_piece_targets(&row, &p) > 0) {
            if (n++ == which) {
                *wanted = p;
                return n;
            }
            *shortest = p.length < *shortest ? p.length : *shortest;
        }
        if (!config->pieces) {
            break;
        }
    }
    return n;
}

static px_status count_pieces(px_lm_batches *b, px_rng rng)
{
    const px_lm_config *config = b->config;
    int64_t rows = px_dataset_count(config->train);
    int files;
    const px_part *parts = px_dataset_parts(config->train, &files);
    b->parts = px_alloc_array((size_t)files, sizeof *b->parts, "the files of the training texts");
    b->before = px_alloc_array((size_t)(rows / STRIDE + 1), sizeof *b->before, "the pieces of the training texts");
    if (b->parts == NULL || b->before == NULL) {
        return px_error_code();
    }
    b->shortest = INT32_MAX;
    for (int64_t f = 0, r = 0; f < files; f++) {
        b->parts[f].weight = parts[f].weight;
        for (int64_t end = r + parts[f].count; r < end; r++) {
            if (r % STRIDE == 0) {
                b->before[r / STRIDE] = b->piece_count;
            }
            int64_t n = cut_row(config, r, -1, NULL, &b->shortest);
            b->parts[f].count += n;
            b->piece_count += n;
        }
    }
    if (b->piece_count == 0) {
        return px_fail(PX_DATA, "the training data has no row with a token to predict");
    }
    return px_order_init(&b->order, b->parts, files, config->shuffle, rng);
}

static px_piece find_piece(const px_lm_batches *b, int64_t number)
{
    int64_t low = 0, high = (px_dataset_count(b->config->train) - 1) / STRIDE;
    while (low < high) { /* the last entry that is not above */
        int64_t middle = (low + high + 1) / 2;
        if (b->before[middle] <= number) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    int64_t which = number - b->before[low];
    int32_t unused = 0;
    px_piece found = {0};
    for (int64_t r = low * STRIDE; which >= 0; r++) {
        which -= cut_row(b->config, r, which, &found, &unused);
    }
    return found;
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

/* Places that are packed together: an epoch in equal parts of about WINDOW steps. A window lies in one epoch, so that no
 * step has a row twice and an epoch is a whole number of steps. `places` and `tokens` are an epoch's. */
static int64_t window_of(const px_lm_config *config, int64_t places, double tokens)
{
    if (!config->packing || config->batch_size > 0) {
        return 0;
    }
    double steps = tokens / (double)config->batch_tokens;
    int64_t windows = llround(steps / WINDOW), least = (places + WINDOW_PLACES - 1) / WINDOW_PLACES;
    windows = windows > least ? windows : least;
    return (places + windows - 1) / windows;
}

/* As few bins as best fit decreasing needs for batch_tokens each, then the smallest capacity that it needs no more for: what
 * the last bin lacks is shared by all, so that none is a small rest. */
static int64_t pack_evenly(const px_lm_config *config, const int32_t *sizes, int64_t count, int32_t *bin)
{
    int64_t sum = 0, longest = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += sizes[i];
        longest = sizes[i] > longest ? sizes[i] : longest;
    }
    int64_t high = sum < config->batch_tokens ? sum : config->batch_tokens, bins = px_pack(sizes, count, (int)high, bin);
    int64_t low = bins > 0 ? (sum + bins - 1) / bins : high;
    low = low > longest ? low : longest;
    while (bins >= 0 && low < high) {
        int64_t middle = low + (high - low) / 2, needed = px_pack(sizes, count, (int)middle, bin);
        if (needed < 0) {
            return needed;
        }
        if (needed <= bins) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return bins < 0 ? bins : px_pack(sizes, count, (int)high, bin);
}

/* The bins become steps, numbered by their first places, in random order with shuffle; pieces of a step keep their order. */
static void order_steps(px_lm_batches *b, int64_t first, int64_t places)
{
    int64_t *step = b->numbers, *end = b->turn, found = 0;
    if (b->config->shuffle) {
        px_rng_permutation(&b->rng, (uint32_t)first, (uint32_t)(first >> 32), b->steps, b->turn);
    }
    for (int64_t s = 0; s < b->steps; s++) {
        step[s] = -1;
    }
    for (int64_t i = 0; i < places; i++) {
        if (step[b->bin[i]] < 0) {
            step[b->bin[i]] = b->config->shuffle ? b->turn[found] : found;
            found++;
        }
        b->bin[i] = (int32_t)step[b->bin[i]];
    }
    for (int64_t s = 0; s <= b->steps; s++) {
        b->starts[s] = 0;
    }
    for (int64_t i = 0; i < places; i++) {
        b->starts[b->bin[i] + 1]++;
    }
    for (int64_t s = 0; s < b->steps; s++) {
        end[s] = b->starts[s];
        b->starts[s + 1] += b->starts[s];
    }
    for (int64_t i = 0; i < places; i++) {
        b->numbers[end[b->bin[i]]++] = b->drawn[i];
    }
}

/* Packs the window that has the position. A piece of more than batch_tokens counts as a full step: it gets its own. */
static px_status pack_window(px_lm_batches *b, int64_t position)
{
    int64_t place = position % b->order.length, begin = place / b->window * b->window;
    int64_t first = position - place + begin, rest = b->order.length - begin;
    int64_t places = rest < b->window ? rest : b->window;
    b->places = 0;
    for (int64_t i = 0; i < places; i++) {
        b->drawn[i] = px_order_row(&b->order, first + i);
        if (b->drawn[i] < 0) {
            return px_error_code();
        }
        int32_t length = find_piece(b, b->drawn[i]).length;
        b->sizes[i] = length < b->config->batch_tokens ? length : (int32_t)b->config->batch_tokens;
    }
    b->steps = pack_evenly(b->config, b->sizes, places, b->bin);
    if (b->steps < 0) {
        return px_error_code();
    }
    order_steps(b, first, places);
    b->first = first;
    b->places = places;
    return PX_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static int64_t take(px_lm_batches *b, int64_t number)
{
    px_piece p = find_piece(b, number);
    b->pieces[b->count] = p;
    b->lengths[b->count++] = p.length;
    return p.length;
}

static px_status next_packed(px_lm_batches *b, double *cursor)
{
    int64_t position = (int64_t)*cursor;
    if (position < b->first || position >= b->first + b->places) {
        PX_TRY(pack_window(b, position));
    }
    int64_t step = 0;
    while (b->starts[step + 1] <= position - b->first) {
        step++;
    }
    for (int64_t i = b->starts[step]; i < b->starts[step + 1]; i++) {
        take(b, b->numbers[i]);
    }
    *cursor = (double)(b->first + b->starts[step + 1]);
    return PX_OK;
}

px_status px_lm_batches_next(px_lm_batches *b, double *cursor)
{
    int64_t sum = 0, size = b->config->batch_size;
    b->count = 0;
    if (b->window > 0) {
        return next_packed(b, cursor);
    }
    while (b->count < b->most) {
        int64_t number = px_order_row(&b->order, (int64_t)*cursor);
        if (number < 0) {
            return px_error_code();
        }
        if (size == 0 && b->count > 0 && sum + find_piece(b, number).length > b->config->batch_tokens) {
            break;
        }
        sum += take(b, number);
        *cursor += 1.0;
        if (*cursor == (double)b->end) {
            break;
        }
    }
    return PX_OK;
}

/* ---- beginning and end --------------------------------------------------------------------------------------------- */

static px_status window_alloc(px_lm_batches *b)
{
    size_t n = (size_t)b->window;
    b->drawn = px_alloc_array(n, sizeof *b->drawn, "packed steps");
    b->numbers = px_alloc_array(n, sizeof *b->numbers, "packed steps");
    b->starts = px_alloc_array(n + 1, sizeof *b->starts, "packed steps");
    b->turn = px_alloc_array(n, sizeof *b->turn, "packed steps");
    b->sizes = px_alloc_array(n, sizeof *b->sizes, "packed steps");
    b->bin = px_alloc_array(n, sizeof *b->bin, "packed steps");
    bool all = b->drawn != NULL && b->numbers != NULL && b->starts != NULL && b->turn != NULL && b->sizes != NULL;
    return all && b->bin != NULL ? PX_OK : px_error_code();
}

px_status px_lm_batches_init(px_lm_batches *b, const px_lm_config *config, uint64_t seed, const char *stage)
{
    *b = (px_lm_batches){.config = config, .rng = px_rng_make(seed, stage, PX_RNG_PERMUTE)};
    PX_TRY(count_pieces(b, px_rng_make(seed, stage, PX_RNG_ORDER)));
    b->most = config->batch_size > 0 ? config->batch_size : config->batch_tokens / b->shortest + 1;
    b->pieces = px_alloc_array((size_t)b->most, sizeof *b->pieces, "a minibatch");
    b->lengths = px_alloc_array((size_t)b->most, sizeof *b->lengths, "minibatch lengths");
    if (b->pieces == NULL || b->lengths == NULL) {
        return px_error_code();
    }
    b->end = px_passes(config->epochs, b->order.length);
    b->window = window_of(config, b->order.length, px_dataset_epoch_tokens(config->train));
    return b->window > 0 ? window_alloc(b) : PX_OK;
}

void px_lm_batches_free(px_lm_batches *b)
{
    px_order_free(&b->order);
    px_free(b->before);
    px_free(b->parts);
    px_free(b->pieces);
    px_free(b->lengths);
    px_free(b->drawn);
    px_free(b->numbers);
    px_free(b->starts);
    px_free(b->turn);
    px_free(b->sizes);
    px_free(b->bin);
    *b = (px_lm_batches){0};
}

/* Rows are taken one after another until a step is full. */
static px_status count_steps(px_lm_batches *b, int64_t *steps)
{
    for (double cursor = 0.0; cursor < (double)b->end; (*steps)++) {
        PX_TRY(px_lm_batches_next(b, &cursor));
    }
    return PX_OK;
}

/* With packing: exact where an epoch is one window, else as many as its first window has, in each. */
static px_status count_packed(px_lm_batches *b, int64_t *steps)
{
    PX_TRY(pack_window(b, 0));
    double each = (double)b->steps * (double)b->order.length / (double)b->places;
    *steps = (int64_t)ceil(b->config->epochs * each - 1e-9);
    return PX_OK;
}

px_status px_lm_steps(const px_lm_config *config, double epochs, uint64_t seed, const char *stage, int64_t *steps)
{
    px_lm_batches b;
    px_lm_config ends = *config;
    *steps = 0;
    ends.epochs = epochs;
    px_status status = px_lm_batches_init(&b, &ends, seed, stage);
    if (status == PX_OK && config->batch_size > 0) {
        *steps = (b.end + config->batch_size - 1) / config->batch_size;
    } else if (status == PX_OK) {
        status = config->packing ? count_packed(&b, steps) : count_steps(&b, steps);
    }
    px_lm_batches_free(&b);
    return status;
}

int64_t px_lm_batches_most(const px_lm_config *config)
{
    int shortest = px_dataset_summary(config->train)->min_length;
    return config->batch_size > 0 ? config->batch_size : config->batch_tokens / (shortest > 2 ? shortest : 2) + 1;
}

size_t px_lm_batches_bytes(const px_lm_config *config)
{
    int files;
    const px_part *parts = px_dataset_parts(config->train, &files);
    int64_t places = px_parts_epoch(parts, files), items = px_lm_batches_most(config);
    double tokens = px_dataset_epoch_tokens(config->train);
    size_t order = px_order_bytes(parts, files, config->shuffle);
    if (config->pieces && config->max_tokens > 0) {
        int64_t more = (int64_t)(tokens / config->max_tokens);
        places += more;
        order += order > 0 ? (size_t)more * sizeof(int64_t) : 0;
    }
    size_t window = (size_t)window_of(config, places, tokens), packing = 0;
    if (window > 0) { /* the arrays of a window, and what packing it takes for a moment: by place, and by free space */
        double space = tokens < (double)config->batch_tokens ? tokens : (double)config->batch_tokens;
        packing = window * (4 * sizeof(int64_t) + 2 * sizeof(int32_t) + 28) + (size_t)(20.0 * space);
    }
    return (size_t)(px_dataset_count(config->train) / STRIDE + 1) * sizeof(int64_t) + order + packing +
           (size_t)items * (sizeof(px_piece) + sizeof(int32_t));
}
