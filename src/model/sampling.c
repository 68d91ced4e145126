/* One token from a row of logits. Order as in Hugging Face's generate: repetition penalty, min_new_tokens, temperature,
 * top-k, top-p, min-p; then the inverse CDF in id order. Without any of them the softmax's own sums are inverted; else
 * the distribution is made in double. Nothing is sorted: the thresholds of top-k and top-p are found digit by digit in
 * the weights' representation. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "block.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define FOR_EACH_ISA __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_ISA
#endif

#define LANES 16
#define CDF_BLOCK 512 /* weights whose sum is compared with the uniform at once */

/* exp(x) for x <= 0, without branches, within 1 ulp or so: x = n ln 2 + r, Taylor in r to degree 13, times 2^n.
 * 0 below -708 and for NaN. */
static inline double exp_negative(double x)
{
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer, kept in the low bits */
    double y = x > -708 ? x : -708;
    double shifted = y * 1.4426950408889634074 + magic;
    double n = shifted - magic;
    double r = y - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1;
    p = p * r + 1;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 52) + ((uint64_t)1023 << 52);
    double power;
    memcpy(&power, &bits, sizeof power);
    return x > -708 ? p * power : 0;
}

/* weights = z / temperature; returns the largest. NaN is never the largest. */
FOR_EACH_ISA static double scale_row(double *weights, const px_real *logits, int V, double temperature)
{
    double largest = -INFINITY, inverse = 1 / temperature, lane[LANES];
    int i = 0;
    for (int j = 0; j < LANES; j++) lane[j] = -INFINITY;
    for (; i + LANES <= V; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            double z = (double)logits[i + j] * inverse;
            weights[i + j] = z;
            lane[j] = z > lane[j] ? z : lane[j];
        }
    }
    for (; i < V; i++) {
        weights[i] = (double)logits[i] * inverse;
        largest = weights[i] > largest ? weights[i] : largest;
    }
    for (int j = 0; j < LANES; j++) largest = lane[j] > largest ? lane[j] : largest;
    return largest;
}

FOR_EACH_ISA static void exponentiate(double *weights, int V, double largest)
{
    for (int i = 0; i < V; i++) weights[i] = exp_negative(weights[i] - largest);
}

/* The order of additions is that of the lanes, whatever the instruction set. */
FOR_EACH_ISA static double block_sum(const double *weights, int count)
{
    double lane[LANES] = {0};
    int i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (int j = 0; j < LANES; j++) lane[j] += weights[i + j];
    }
    for (int j = 0; i < count; i++, j++) lane[j] += weights[i];
    for (int step = LANES / 2; step > 0; step /= 2) {
        for (int j = 0; j < step; j++) lane[j] += lane[j + step];
    }
    return lane[0];
}

static double row_sum(const double *weights, int V)
{
    double total = 0;
    for (int i = 0; i < V; i += CDF_BLOCK) total += block_sum(weights + i, V - i < CDF_BLOCK ? V - i : CDF_BLOCK);
    return total;
}

/* Goes down from the largest weight until `count` of them or the mass `mass` is reached; returns the weight at which
 * that happens and the mass strictly above it. Positive doubles order as their bits do. */
#define DIGIT_BITS 11
static double descend(const double *weights, int V, double count, double mass, double *mass_above)
{
    uint64_t prefix = 0, mask = 0;
    double above_count = 0, above_mass = 0;
    for (int shift = 64 - DIGIT_BITS; mask != UINT64_MAX; shift = shift > DIGIT_BITS ? shift - DIGIT_BITS : 0) {
        double bin_mass[1 << DIGIT_BITS] = {0};
        int bin_count[1 << DIGIT_BITS] = {0};
        for (int i = 0; i < V; i++) {
            uint64_t bits;
            memcpy(&bits, &weights[i], sizeof bits);
            if ((bits & mask) != prefix || weights[i] <= 0) continue;
            int digit = (int)((bits >> shift) & ((1 << DIGIT_BITS) - 1));
            bin_mass[digit] += weights[i];
            bin_count[digit]++;
        }
        int found = -1;
        double found_count = 0, found_mass = 0; /* above the bin found */
        for (int digit = (1 << DIGIT_BITS) - 1; digit >= 0; digit--) {
            if (bin_count[digit] == 0) continue;
            found = digit;
            found_count = above_count;
            found_mass = above_mass;
            if (above_count + bin_count[digit] >= count || above_mass + bin_mass[digit] >= mass) break;
            above_count += bin_count[digit];
            above_mass += bin_mass[digit];
        }
        if (found < 0) break;
        above_count = found_count;
        above_mass = found_mass;
        mask |= (uint64_t)((1 << DIGIT_BITS) - 1) << shift;
        prefix = (prefix & ~((uint64_t)((1 << DIGIT_BITS) - 1) << shift)) | (uint64_t)found << shift;
    }
    *mass_above = above_mass;
    double weight;
    memcpy(&weight, &prefix, sizeof weight);
    return weight;
}

static void keep_top_k(double *weights, int V, int k)
{
    double above, least = descend(weights, V, k, INFINITY, &above);
    for (int i = 0; i < V; i++) weights[i] = weights[i] < least ? 0 : weights[i]; /* ties stay */
}

/* A token stays if the mass strictly before it, in descending order (ids among equals), is below p. */
static void keep_top_p(double *weights, int V, double p)
{
    double mass = p * row_sum(weights, V);
    double above, least = descend(weights, V, INFINITY, mass, &above);
    bool first = true;
    for (int i = 0; i < V; i++) {
        if (weights[i] > least) continue;
        bool keep = weights[i] == least && least > 0 && (above < mass || (first && above <= 0));
        if (keep) {
            above += weights[i];
            first = false;
        } else {
            weights[i] = 0;
        }
    }
}

px_status px_sampling_stop_at(px_sampling *sampling, int32_t id)
{
    return px_stop_ids_add(sampling->stop_ids, &sampling->stop_count, id)
               ? PX_OK : px_fail(PX_CONFIG, "more than %d ids end a completion; valid are %d, those of the model among them",
                                 PX_MAX_EOS, PX_MAX_EOS);
}

static void apply_penalties(double *weights, const px_real *logits, int V, const px_sampling *sampling,
                            const int32_t *history, int history_length, int generated, double temperature)
{
    double penalty = sampling->repetition_penalty;
    for (int i = 0; penalty != 1 && i < history_length; i++) { /* from the logit: an id seen twice is penalised once */
        double z = logits[history[i]];
        weights[history[i]] = (z > 0 ? z / penalty : z * penalty) / temperature;
    }
    for (int i = 0; generated < sampling->min_new_tokens && i < sampling->stop_count; i++) {
        if (sampling->stop_ids[i] >= 0 && sampling->stop_ids[i] < V) weights[sampling->stop_ids[i]] = -INFINITY;
    }
}

static int largest_id(const double *weights, int V)
{
    int best = 0;
    for (int i = 1; i < V; i++) {
        if (weights[i] > weights[best] || isnan(weights[best])) best = i;
    }
    return best;
}

/* First id at which the running sum exceeds uniform * total; the last one with weight where rounding leaves none. */
static int invert_cdf(const double *weights, int V, double uniform, double total)
{
    double target = uniform * total, before = 0, running = 0;
    int block = 0;
    for (int i = 0; i < V; i += CDF_BLOCK) {
        double sum = block_sum(weights + i, V - i < CDF_BLOCK ? V - i : CDF_BLOCK);
        if (sum <= 0) continue;
        block = i;
        running = before;
        before += sum;
        if (before > target) break;
    }
    int end = V - block < CDF_BLOCK ? V : block + CDF_BLOCK, last = block;
    for (int i = block; i < end; i++) {
        if (weights[i] <= 0) continue;
        last = i;
        running += weights[i];
        if (running > target) break;
    }
    return last;
}

static bool masked(const px_sampling *sampling, int generated)
{
    return generated < sampling->min_new_tokens && sampling->stop_count > 0;
}

/* weights[V] becomes the final distribution times *total. */
static int choose(const px_real *logits, int V, const px_sampling *sampling, const int32_t *history,
                  int history_length, int generated, double uniform, double *weights, double *total)
{
    bool greedy = sampling->temperature <= 0;
    double temperature = greedy ? 1 : sampling->temperature;
    double largest = scale_row(weights, logits, V, temperature);
    if (masked(sampling, generated) || (sampling->repetition_penalty != 1 && history_length > 0)) {
        apply_penalties(weights, logits, V, sampling, history, history_length, generated, temperature);
        largest = weights[largest_id(weights, V)];
    }
    if (greedy) {
        int best = largest_id(weights, V);
        memset(weights, 0, (size_t)V * sizeof *weights);
        weights[best] = *total = 1;
        return best;
    }
    exponentiate(weights, V, largest);
    if (sampling->top_k > 0 && sampling->top_k < V) keep_top_k(weights, V, sampling->top_k);
    if (sampling->top_p < 1) keep_top_p(weights, V, sampling->top_p);
    if (sampling->min_p > 0) { /* the largest weight is exp(0) */
        for (int i = 0; i < V; i++) weights[i] = weights[i] < sampling->min_p ? 0 : weights[i];
    }
    *total = row_sum(weights, V);
    return invert_cdf(weights, V, uniform, *total);
}

int px_sample_token(px_row_stats *stats, const px_real *logits, int V, const px_sampling *sampling,
                    const int32_t *history, int history_length, int generated, double uniform, double *weights)
{
    bool whole = sampling->temperature <= 0 || (sampling->top_p >= 1 && sampling->min_p <= 0 &&
                                                (sampling->top_k <= 0 || sampling->top_k >= V));
    if (whole && sampling->repetition_penalty == 1 && !masked(sampling, generated)) {
        int id = px_softmax_draw(stats, logits, V, sampling->temperature, uniform, weights);
        if (id >= 0) return id;
    }
    double total;
    int32_t id = choose(logits, V, sampling, history, history_length, generated, uniform, weights, &total);
    px_compute alone = {.threads = 1};
    px_softmax_rows(&alone, stats, logits, V, &id, 1, V, sampling->temperature > 0 ? sampling->temperature : 1, false);
    return id;
}

int px_sample_row(const px_real *logits, int V, const px_sampling *sampling, const int32_t *history,
                  int history_length, double uniform, double *probabilities)
{
    double total;
    int id = choose(logits, V, sampling, history, history_length, history_length, uniform, probabilities, &total);
    for (int i = 0; i < V; i++) probabilities[i] /= total;
    return id;
}
