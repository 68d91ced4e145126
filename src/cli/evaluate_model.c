/* Loss of a language model, accuracy of a reward model. Rows are shared by the ranks, results are gathered, and every
 * sum runs over all rows in order, so that its bits do not depend on how many ranks there are. */
#include "evaluate.h"
#include "phalanx/dist.h"
#include "phalanx/rlhf.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BATCH_TOKENS = 2048 };

typedef struct runner { /* a ragged batch and what is wanted of it */
    px_engine *engine;
    const px_model *model;
    int capacity, longest; /* tokens of the batch, of a sequence */
    int32_t *ids, *starts, *rows, *targets;
    int sequences, tokens, wanted;
} runner;

/* Takes the longest row, or a piece of it where it is longer than `most`, and both sides of the largest pair. */
static px_status open_runner(runner *r, const px_opened *o, const px_dataset *data, int most)
{
    int longest = 1, largest = BATCH_TOKENS;
    for (int64_t i = 0; i < px_dataset_count(data); i++) {
        px_row row;
        px_dataset_row(data, i, &row);
        int length = row.length < most ? row.length : most, side = length > row.rejected_length ? length : row.rejected_length;
        longest = side > longest ? side : longest;
        largest = length + row.rejected_length > largest ? length + row.rejected_length : largest;
    }
    *r = (runner){.model = &o->model, .capacity = largest, .longest = longest};
    size_t n = (size_t)r->capacity + 1;
    r->ids = px_alloc_array(n, sizeof *r->ids, "a batch");
    r->starts = px_alloc_array(n, sizeof *r->starts, "a batch");
    r->rows = px_alloc_array(n, sizeof *r->rows, "a batch");
    r->targets = px_alloc_array(n, sizeof *r->targets, "a batch");
    if (r->ids == NULL || r->starts == NULL || r->rows == NULL || r->targets == NULL) {
        return px_error_code();
    }
    px_engine_plan plan = {.max_tokens = r->capacity, .max_sequences = r->capacity,
                           .max_sequence = longest, .threads = o->threads,
                           .precision = o->precision};
    return px_engine_create(&r->engine, &o->model.config, &plan);
}

static void close_runner(runner *r)
{
    px_engine_destroy(r->engine);
    px_free(r->ids);
    px_free(r->starts);
    px_free(r->rows);
    px_free(r->targets);
}

static bool fits(const runner *r, int length)
{
    return r->tokens + length <= r->capacity;
}

/* Returns where the sequence begins in the batch. */
static int add_sequence(runner *r, const int32_t *ids, int length)
{
    int at = r->tokens;
    memcpy(r->ids + at, ids, (size_t)length * sizeof *ids);
    r->tokens += length;
    r->starts[++r->sequences] = r->tokens;
    return at;
}

static void forward(runner *r)
{
    px_batch batch = {.ids = r->ids, .starts = r->starts, .sequences = r->sequences, .tokens = r->tokens};
    px_engine_forward(r->engine, r->model, &batch);
}

static void clear(runner *r)
{
    r->sequences = r->tokens = r->wanted = 0;
}

static px_status stopped(void)
{
    return px_stop_level() > 0 ? px_fail(PX_STOPPED, "stopped while evaluating") : PX_OK;
}

static FILE *open_lines(const char *path, px_status *status)
{
    FILE *out = path != NULL && px_dist_rank() == 0 ? fopen(path, "we") : NULL;
    *status = path != NULL && px_dist_rank() == 0 && out == NULL ? px_fail(PX_IO, "%s: cannot write: %m", path) : PX_OK;
    return out;
}

static px_status put_line(FILE *out, const char *path, json_t *line)
{
    bool fine = line != NULL && json_dumpf(line, out, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0;
    fine = fine && fputc('\n', out) != EOF;
    json_decref(line);
    return fine ? PX_OK : px_fail(PX_IO, "%s: cannot write", path);
}

static px_status close_lines(FILE *out, const char *path)
{
    return out == NULL || fclose(out) == 0 ? PX_OK : px_fail(PX_IO, "%s: cannot write: %m", path);
}

/* ---- language models --------------------------------------------------------------------------------------------- */

/* A text that is longer than the model's context is evaluated in pieces, as pretraining learns it: nothing predicts the
 * first token of a piece. */
static bool is_target(const px_row *row, int position, int longest)
{
    if (position % longest == 0) {
        return false;
    }
    return row->mask != NULL ? row->mask[position] != 0 : position >= row->prompt_length;
}

static int64_t count_targets(const px_dataset *data, int64_t first, int64_t count, int longest)
{
    int64_t targets = 0;
    for (int64_t i = first; i < first + count; i++) {
        px_row row;
        px_dataset_row(data, i, &row);
        for (int t = 1; t < row.length; t++) {
            targets += is_target(&row, t, longest);
        }
    }
    return targets;
}

static void flush_texts(runner *r, px_row_stats *stats, float **out)
{
    if (r->sequences == 0) {
        return;
    }
    forward(r);
    px_engine_logprobs(r->engine, r->model, r->rows, r->targets, r->wanted, 1.0, false, stats);
    for (int i = 0; i < r->wanted; i++) {
        *(*out)++ = (float)stats[i].logprob;
    }
    clear(r);
}

static void add_piece(runner *r, const px_row *row, int start, int length)
{
    int at = add_sequence(r, row->ids + start, length);
    for (int k = 1; k < length; k++) {
        if (is_target(row, start + k, r->longest)) {
            r->rows[r->wanted] = at + k - 1;
            r->targets[r->wanted++] = row->ids[start + k];
        }
    }
}

/* Log-probabilities of the targets of rows [first, first + count), one after another. */
static px_status run_texts(runner *r, const px_dataset *data, int64_t first, int64_t count, float *out)
{
    px_row_stats *stats = px_alloc_array((size_t)r->capacity, sizeof *stats, "log-probabilities");
    if (stats == NULL) {
        return px_error_code();
    }
    px_status status = PX_OK;
    for (int64_t i = first; i < first + count && status == PX_OK; i++) {
        px_row row;
        px_dataset_row(data, i, &row);
        for (int t = 0; t < row.length && status == PX_OK; t += r->longest) {
            int length = row.length - t < r->longest ? row.length - t : r->longest;
            if (!fits(r, length)) {
                flush_texts(r, stats, &out);
                px_progress("%lld of %lld rows", (long long)(i - first), (long long)count);
                status = stopped();
            }
            add_piece(r, &row, t, length);
        }
    }
    if (status == PX_OK) {
        flush_texts(r, stats, &out);
    }
    px_free(stats);
    px_progress(NULL);
    return status;
}

static px_status text_line(FILE *out, const char *path, const px_row *row, const float *logprobs, int64_t n, double nll)
{
    json_t *list = json_array();
    for (int64_t k = 0; k < n; k++) {
        json_array_append_new(list, json_real((double)logprobs[k]));
    }
    return put_line(out, path, json_pack("{s:I, s:f, s:I, s:o}", "record", (json_int_t)row->record, "nll", nll,
                                         "tokens", (json_int_t)n, "logprobs", list));
}

static px_status summarize_texts(const px_evaluation *e, const px_dataset *data, const float *logprobs)
{
    px_status status;
    FILE *out = open_lines(e->per_record, &status);
    int64_t tokens = 0, pieces = 0, rows = px_dataset_count(data);
    double sum = 0.0;
    for (int64_t i = 0; i < rows && status == PX_OK; i++) {
        px_row row;
        px_dataset_row(data, i, &row);
        int64_t n = count_targets(data, i, 1, e->longest);
        pieces += (row.length - 1) / e->longest + 1;
        double nll = 0.0;
        for (int64_t k = 0; k < n; k++) {
            nll -= (double)logprobs[tokens + k];
        }
        if (out != NULL) {
            status = text_line(out, e->per_record, &row, logprobs + tokens, n, nll);
        }
        tokens += n;
        sum += nll;
    }
    px_status closed = close_lines(out, e->per_record);
    PX_TRY(status);
    PX_TRY(closed);
    if (tokens == 0) {
        return px_fail(PX_DATA, "%s: no token to predict; rows need two tokens or more", e->data);
    }
    const px_data_summary *s = px_dataset_summary(data);
    double loss = sum / (double)tokens;
    if (!isfinite(loss)) {
        return px_fail(PX_DATA, "%s: the loss is not finite; are the weights?", e->model);
    }
    return px_evaluation_print(e, json_pack("{s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:s}", "loss", loss, "perplexity",
                                            exp(loss < 700.0 ? loss : 700.0), "tokens", (json_int_t)tokens, "rows",
                                            (json_int_t)rows, "pieces", (json_int_t)pieces, "cut", (json_int_t)s->cut, "dropped",
                                            (json_int_t)s->dropped, "shape", s->shape));
}

/* This rank's share into its place, then everybody's. */
static px_status share_texts(runner *r, const px_dataset *data, float *logprobs)
{
    int size = px_dist_size();
    int64_t *bytes = px_alloc_array((size_t)size, sizeof *bytes, "shares");
    int64_t first, count, before = 0;
    if (bytes == NULL) {
        return px_error_code();
    }
    for (int rank = 0; rank < size; rank++) {
        px_share(px_dataset_count(data), rank, size, &first, &count);
        bytes[rank] = count_targets(data, first, count, r->longest) * (int64_t)sizeof *logprobs;
        before += rank < px_dist_rank() ? bytes[rank] : 0;
    }
    px_share(px_dataset_count(data), px_dist_rank(), size, &first, &count);
    float *mine = logprobs + before / (int64_t)sizeof *logprobs;
    px_status status = px_agree(run_texts(r, data, first, count, mine));
    if (status == PX_OK) {
        px_gather_bytes(mine, logprobs, bytes);
    }
    px_free(bytes);
    return status;
}

px_status px_evaluate_texts(const px_evaluation *e, px_opened *opened, const px_dataset *data)
{
    int64_t targets = count_targets(data, 0, px_dataset_count(data), e->longest);
    float *logprobs = px_alloc_array((size_t)targets + 1, sizeof *logprobs, "log-probabilities");
    runner r = {.capacity = 0};
    px_status status = logprobs != NULL ? open_runner(&r, opened, data, e->longest) : px_error_code();
    status = px_agree(status);
    if (status == PX_OK) {
        status = share_texts(&r, data, logprobs);
    }
    if (status == PX_OK) {
        status = summarize_texts(e, data, logprobs);
    }
    close_runner(&r);
    px_free(logprobs);
    return status;
}

/* ---- reward models ----------------------------------------------------------------------------------------------- */

static void flush_pairs(runner *r, double (**out)[2])
{
    if (r->sequences == 0) {
        return;
    }
    forward(r);
    px_engine_values(r->engine, r->model, r->rows, r->wanted, **out);
    *out += r->wanted / 2;
    clear(r);
}

static void add_last(runner *r, const int32_t *ids, int length)
{
    int at = add_sequence(r, ids, length);
    r->rows[r->wanted++] = at + length - 1;
}

/* Scores of both sides: the scalar at the last token. */
static px_status run_pairs(runner *r, const px_dataset *data, int64_t first, int64_t count, double (*out)[2])
{
    for (int64_t i = first; i < first + count; i++) {
        px_row row;
        px_dataset_row(data, i, &row);
        if (!fits(r, row.length + row.rejected_length)) {
            flush_pairs(r, &out);
            px_progress("%lld of %lld pairs", (long long)(i - first), (long long)count);
            PX_TRY(stopped());
        }
        add_last(r, row.ids, row.length);
        add_last(r, row.rejected, row.rejected_length);
    }
    flush_pairs(r, &out);
    px_progress(NULL);
    return PX_OK;
}

static px_status summarize_pairs(const px_evaluation *e, const px_dataset *data, double (*scores)[2])
{
    px_status status;
    FILE *out = open_lines(e->per_record, &status);
    int64_t pairs = px_dataset_count(data), right = 0;
    double margin = 0.0, sum = 0.0;
    for (int64_t i = 0; i < pairs && status == PX_OK; i++) {
        px_row row;
        px_dataset_row(data, i, &row);
        double chosen = scores[i][0], rejected = scores[i][1], gradient;
        right += chosen > rejected;
        margin += chosen - rejected;
        sum += px_bt_loss(chosen, rejected, row.margin, &gradient);
        if (out != NULL) {
            status = put_line(out, e->per_record, json_pack("{s:I, s:f, s:f}", "record", (json_int_t)row.record,
                                                            "chosen", chosen, "rejected", rejected));
        }
    }
    px_status closed = close_lines(out, e->per_record);
    PX_TRY(status);
    PX_TRY(closed);
    if (pairs == 0) {
        return px_fail(PX_DATA, "%s: no pair is left", e->data);
    }
    double n = (double)pairs;
    if (!isfinite(sum)) {
        return px_fail(PX_DATA, "%s: the scores are not finite; are the weights?", e->model);
    }
    return px_evaluation_print(e, json_pack("{s:f, s:f, s:f, s:I, s:I, s:s}", "accuracy", (double)right / n, "margin",
                                            margin / n, "loss", sum / n, "pairs", (json_int_t)pairs, "dropped",
                                            (json_int_t)px_dataset_summary(data)->dropped, "shape",
                                            px_dataset_summary(data)->shape));
}

px_status px_evaluate_pairs(const px_evaluation *e, px_opened *opened, const px_dataset *data)
{
    int64_t pairs = px_dataset_count(data), first, count;
    double (*scores)[2] = px_alloc_array((size_t)pairs + 1, sizeof *scores, "scores");
    runner r = {.capacity = 0};
    px_status status = scores != NULL ? open_runner(&r, opened, data, e->longest) : px_error_code();
    status = px_agree(status);
    if (status == PX_OK) {
        px_share(pairs, px_dist_rank(), px_dist_size(), &first, &count);
        status = px_agree(run_pairs(&r, data, first, count, scores + first));
    }
    if (status == PX_OK) {
        px_gather_shares(scores, sizeof *scores, pairs);
        status = summarize_pairs(e, data, scores);
    }
    close_runner(&r);
    px_free(scores);
    return status;
}
