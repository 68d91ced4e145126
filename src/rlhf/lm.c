/* Language-model training: pretraining on texts and supervised fine-tuning on completions are one trainer. */
#include "phalanx/dist.h"
#include "trainer.h"

#include <math.h>
#include <string.h>

/* A piece of a row: what one sequence of a minibatch is. Pretraining cuts long texts into pieces. */
typedef struct piece {
    int64_t row;
    int32_t offset, length;
} piece;

typedef struct lm {
    px_lm_config config;
    int64_t *before;      /* [rows / STRIDE + 1] pieces before every STRIDE-th row */
    int64_t piece_count;
    int32_t shortest;     /* piece */
    px_part *parts;       /* pieces of each file, with its weight */
    px_order order;
    double cursor;        /* pieces taken so far, over all epochs */
    double tokens_lifetime;
    int64_t max_items;
    /* one minibatch */
    piece *batch;         /* [max_items] */
    int32_t *tokens;      /* [max_items] */
    double *sums;         /* [max_items][STATS] */
    int64_t items, targets;
    px_work work;
    px_ragged ragged;
} lm;

enum { STATS = 2 }; /* per item: sum of negative log-likelihoods, target tokens */
enum { STRIDE = 64 }; /* rows that are searched for a piece: a table of all pieces would not stay small */

static int target_count(const px_row *row, const piece *p)
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

static void add_sequence(px_ragged *ragged, const px_row *row, const piece *p, int64_t item)
{
    int at = px_ragged_add(ragged, row->ids + p->offset, p->length);
    for (int t = 1; t < p->length; t++) {
        int place = p->offset + t;
        if (row->mask != NULL ? row->mask[place] : place >= row->prompt_length) {
            px_ragged_row(ragged, at + t - 1, row->ids[place], item);
        }
    }
}

/* Texts longer than max_tokens become pieces of max_tokens; a last piece of one token has nothing to predict. Returns how
 * many a row gives; *wanted becomes the one with number `which`. */
static int64_t cut_row(const px_lm_config *config, int64_t r, int64_t which, piece *wanted, int32_t *shortest)
{
    px_row row;
    int64_t n = 0;
    px_dataset_row(config->train, r, &row);
    for (int at = 0, limit = config->max_tokens; at < row.length; at += limit) {
        piece p = {r, at, row.length - at < limit ? row.length - at : limit};
        if (p.length >= 2 && target_count(&row, &p) > 0) {
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

static px_status count_pieces(lm *self, px_rng rng)
{
    const px_lm_config *config = &self->config;
    int64_t rows = px_dataset_count(config->train);
    int files;
    const px_part *parts = px_dataset_parts(config->train, &files);
    self->parts = px_alloc_array((size_t)files, sizeof *self->parts, "the files of the training texts");
    self->before = px_alloc_array((size_t)(rows / STRIDE + 1), sizeof *self->before, "the pieces of the training texts");
    if (self->parts == NULL || self->before == NULL) {
        return px_error_code();
    }
    self->shortest = INT32_MAX;
    for (int64_t f = 0, r = 0; f < files; f++) {
        self->parts[f].weight = parts[f].weight;
        for (int64_t end = r + parts[f].count; r < end; r++) {
            if (r % STRIDE == 0) {
                self->before[r / STRIDE] = self->piece_count;
            }
            int64_t n = cut_row(config, r, -1, NULL, &self->shortest);
            self->parts[f].count += n;
            self->piece_count += n;
        }
    }
    if (self->piece_count == 0) {
        return px_fail(PX_DATA, "the training data has no row with a token to predict");
    }
    return px_order_init(&self->order, self->parts, files, config->shuffle, rng);
}

static piece find_piece(const lm *self, int64_t number)
{
    int64_t low = 0, high = (px_dataset_count(self->config.train) - 1) / STRIDE;
    while (low < high) { /* the last entry that is not above */
        int64_t middle = (low + high + 1) / 2;
        if (self->before[middle] <= number) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    int64_t which = number - self->before[low];
    int32_t unused = 0;
    piece found = {0};
    for (int64_t r = low * STRIDE; which >= 0; r++) {
        which -= cut_row(&self->config, r, which, &found, &unused);
    }
    return found;
}

static int64_t most_items(const lm *self)
{
    return self->config.batch_size > 0 ? self->config.batch_size : self->config.batch_tokens / self->shortest + 1;
}

/* The next minibatch in the data order: batch_size pieces, or as many as fit into batch_tokens (at least one). */
static px_status next_batch(lm *self)
{
    int64_t sum = 0;
    self->items = self->targets = 0;
    while (self->items < self->max_items) {
        int64_t place = px_order_row(&self->order, (int64_t)self->cursor);
        if (place < 0) {
            return px_error_code();
        }
        piece p = find_piece(self, place);
        if (self->config.batch_size == 0 && self->items > 0 && sum + p.length > self->config.batch_tokens) {
            break;
        }
        px_row row;
        px_dataset_row(self->config.train, p.row, &row);
        self->batch[self->items] = p;
        self->tokens[self->items++] = p.length;
        self->targets += target_count(&row, &p);
        sum += p.length;
        self->cursor += 1.0;
    }
    self->tokens_lifetime += (double)sum;
    return PX_OK;
}

/* nll of chunk rows -> the item's sums; d(sum nll / targets) / d logprob = -1 / targets. */
static void row_loss(void *arg, int first, int count, const px_row_stats *stats, double *dlogprob, double *dentropy)
{
    lm *self = arg;
    (void)dentropy;
    for (int i = 0; i < count; i++) {
        double *sums = self->sums + self->ragged.items[first + i] * STATS;
        sums[0] -= stats[i].logprob;
        sums[1] += 1.0;
        dlogprob[i] = -1.0 / (double)self->targets;
    }
}

static void run_loss(void *arg, px_learner *learner, float *grads, int64_t first, int64_t count)
{
    lm *self = arg;
    px_ragged *ragged = &self->ragged;
    px_ragged_clear(ragged);
    for (int64_t i = first; i < first + count; i++) {
        px_row row;
        px_dataset_row(self->config.train, self->batch[i].row, &row);
        add_sequence(ragged, &row, &self->batch[i], i);
        self->sums[i * STATS] = self->sums[i * STATS + 1] = 0.0;
    }
    px_batch batch = px_ragged_batch(ragged);
    px_engine_forward(learner->engine, &learner->model, &batch);
    px_engine_lm_backward(learner->engine, &learner->model, grads, ragged->rows, ragged->targets, ragged->row_count, 1.0,
                          false, row_loss, self);
    px_learner_backward(learner, grads);
}

static px_status iterate(px_trainer *trainer, int64_t iteration)
{
    lm *self = trainer->self;
    px_learner *learner = &trainer->learners[0].learner;
    double start = px_now(), work = px_compute_flops(), cursor = self->cursor, tokens_before = self->tokens_lifetime;
    px_trainer_clear(trainer);
    px_phase_set("learn", iteration);
    PX_TRY(next_batch(self));
    px_work_plan(&self->work, self->tokens, self->items, learner->config.exact, px_dist_rank(), px_dist_size());
    px_loss loss = {run_loss, self};
    px_step step;
    px_status status = px_learner_step(learner, &self->work, self->tokens, &loss, &step);
    if (status != PX_OK) {
        self->cursor = cursor;
        self->tokens_lifetime = tokens_before;
        return status;
    }
    px_work_gather(&self->work, self->sums, STATS);
    double nll = 0.0, tokens = 0.0;
    for (int64_t i = 0; i < self->items; i++) {
        nll += self->sums[i * STATS];
        tokens += (double)self->tokens[i];
    }
    double seconds = px_now() - start;
    work = px_compute_flops() - work;
    px_trainer_set(trainer, "loss", nll / (double)self->targets);
    px_trainer_set(trainer, "perplexity", exp(nll / (double)self->targets));
    px_trainer_set(trainer, "grad_norm", step.grad_norm);
    px_trainer_set(trainer, "lr", step.lr);
    px_trainer_set(trainer, "num_tokens", self->tokens_lifetime);
    px_trainer_set(trainer, "epoch", self->cursor / (double)self->order.length);
    px_trainer_set(trainer, "tokens_per_s", tokens / seconds);
    px_trainer_set(trainer, "timers/learn", seconds);
    px_sum_f64(&work, 1);
    px_trainer_set(trainer, "learn_gflop_per_s", 1e-9 * work / seconds);
    return px_trainer_skipped(trainer, iteration, trainer->learners[0].name, step.skipped, self->config.max_skipped_steps);
}

/* Per row: nll, target tokens. */
enum { EVALUATED = 2 };

typedef struct evaluation {
    const px_dataset *data;
    px_ragged ragged;
    px_row_stats *stats;
    double *table; /* [rows][EVALUATED] */
} evaluation;

static void evaluate_batch(evaluation *e, px_engine *engine, const px_model *model)
{
    px_ragged *ragged = &e->ragged;
    px_batch batch = px_ragged_batch(ragged);
    if (batch.sequences == 0) {
        return;
    }
    px_engine_forward(engine, model, &batch);
    px_engine_logprobs(engine, model, ragged->rows, ragged->targets, ragged->row_count, 1.0, false, e->stats);
    for (int i = 0; i < ragged->row_count; i++) {
        double *row = e->table + ragged->items[i] * EVALUATED;
        row[0] -= e->stats[i].logprob;
        row[1] += 1.0;
    }
    px_ragged_clear(ragged);
}

/* A row in pieces of at most max_sequence tokens, each its own sequence; batches of at most max_tokens. */
static px_status evaluate_row(evaluation *e, px_engine *engine, const px_model *model, int64_t r, int max_sequence,
                              int max_tokens)
{
    px_row row;
    px_dataset_row(e->data, r, &row);
    for (int at = 0; at < row.length; at += max_sequence) {
        int length = row.length - at < max_sequence ? row.length - at : max_sequence;
        if (e->ragged.tokens + length > max_tokens ||
            !px_engine_fits(engine, e->ragged.sequences + 1, e->ragged.tokens + length)) {
            evaluate_batch(e, engine, model);
        }
        add_sequence(&e->ragged, &row, &(piece){r, at, length}, r);
    }
    return px_stop_level() > 0 ? PX_STOPPED : PX_OK;
}

px_status px_lm_evaluate(px_engine *engine, const px_model *model, const px_dataset *data, int max_sequence, int max_tokens,
                         double *nll_sum, double *tokens, double *per_row)
{
    int64_t rows = px_dataset_count(data), first, count;
    evaluation e = {.data = data};
    px_status status = px_ragged_alloc(&e.ragged, max_tokens);
    e.stats = px_alloc_array((size_t)max_tokens, sizeof *e.stats, "evaluation statistics");
    e.table = px_alloc_array((size_t)rows * EVALUATED, sizeof(double), "evaluation sums");
    if (status == PX_OK && (e.stats == NULL || e.table == NULL)) {
        status = px_error_code();
    }
    status = px_agree(status);
    px_share(rows, px_dist_rank(), px_dist_size(), &first, &count);
    if (status == PX_OK) {
        px_ragged_clear(&e.ragged);
    }
    for (int64_t r = first; status == PX_OK && r < first + count; r++) {
        status = evaluate_row(&e, engine, model, r, max_sequence, max_tokens);
    }
    if (status == PX_OK) {
        evaluate_batch(&e, engine, model);
    }
    status = px_agree(status);
    if (status == PX_OK) {
        px_gather_shares(e.table, EVALUATED * sizeof(double), rows);
        double sum[EVALUATED] = {0};
        for (int64_t i = 0; i < rows * EVALUATED; i++) {
            sum[i % EVALUATED] += e.table[i];
        }
        *nll_sum = sum[0];
        *tokens = sum[1];
        if (per_row != NULL) {
            memcpy(per_row, e.table, (size_t)rows * EVALUATED * sizeof(double));
        }
    }
    px_ragged_free(&e.ragged);
    px_free(e.stats);
    px_free(e.table);
    return status;
}

static px_status evaluate(px_trainer *trainer, int64_t iteration)
{
    lm *self = trainer->self;
    px_learner *learner = &trainer->learners[0].learner;
    if (self->config.validation == NULL) {
        return PX_OK;
    }
    px_phase_set("evaluate", iteration);
    double nll, tokens;
    PX_TRY(px_lm_evaluate(learner->engine, &learner->model, self->config.validation, learner->config.max_sequence,
                          px_learner_tokens(&learner->config), &nll, &tokens, NULL));
    px_trainer_set_evaluation(trainer, "loss", nll / tokens);
    px_trainer_set_evaluation(trainer, "perplexity", exp(nll / tokens));
    px_trainer_set_evaluation(trainer, "num_tokens", tokens);
    return PX_OK;
}

static void destroy(px_trainer *trainer)
{
    lm *self = trainer->self;
    px_order_free(&self->order);
    px_ragged_free(&self->ragged);
    px_free(self->before);
    px_free(self->parts);
    px_free(self->batch);
    px_free(self->tokens);
    px_free(self->sums);
    px_free(self);
}

int64_t px_lm_steps(const px_lm_config *config, double epochs)
{
    int files;
    const px_part *parts = px_dataset_parts(config->train, &files);
    double steps;
    if (config->batch_size > 0) {
        steps = epochs * (double)px_parts_epoch(parts, files) / (double)config->batch_size;
    } else {
        steps = epochs * px_dataset_epoch_tokens(config->train) / (double)config->batch_tokens;
    }
    return (int64_t)ceil(steps - 1e-9);
}

size_t px_lm_bytes(const px_lm_config *config)
{
    int files;
    const px_part *parts = px_dataset_parts(config->train, &files);
    int64_t items = config->batch_size;
    size_t order = px_order_bytes(parts, files, config->shuffle);
    if (config->pieces && config->max_tokens > 0 && order > 0) {
        order += (size_t)(px_dataset_epoch_tokens(config->train) / config->max_tokens) * sizeof(int64_t);
    }
    if (items == 0) {
        int shortest = px_dataset_summary(config->train)->min_length;
        items = config->batch_tokens / (shortest > 2 ? shortest : 2) + 1;
    }
    return (size_t)(px_dataset_count(config->train) / STRIDE + 1) * sizeof(int64_t) + order + px_ragged_bytes(px_learner_tokens(&config->learner)) +
           (size_t)items * (sizeof(piece) + sizeof(int32_t) + STATS * sizeof(double));
}

px_status px_lm_create(px_trainer *trainer, const px_algorithm *algorithm, const px_lm_config *config, px_model *model)
{
    PX_TRY(px_trainer_begin(trainer, algorithm));
    lm *self = px_alloc(sizeof *self, "the language-model trainer");
    if (self == NULL) {
        return px_error_code();
    }
    trainer->self = self;
    self->config = *config;
    PX_TRY(count_pieces(self, px_rng_make(trainer->seed, trainer->stage, PX_RNG_ORDER)));
    self->max_items = most_items(self);
    self->batch = px_alloc_array((size_t)self->max_items, sizeof(piece), "a minibatch");
    self->tokens = px_alloc_array((size_t)self->max_items, sizeof(int32_t), "minibatch lengths");
    self->sums = px_alloc_array((size_t)self->max_items * STATS, sizeof(double), "minibatch sums");
    if (self->batch == NULL || self->tokens == NULL || self->sums == NULL) {
        return px_error_code();
    }
    const px_learner_config *learner = &config->learner;
    PX_TRY(px_ragged_alloc(&self->ragged, px_learner_tokens(learner)));
    trainer->learners[0].name = "policy";
    trainer->learner_count = 1;
    PX_TRY(px_learner_create(&trainer->learners[0].learner, model, learner));
    px_trainer_count(trainer, "cursor", &self->cursor);
    px_trainer_count(trainer, "num_tokens", &self->tokens_lifetime);
    return PX_OK;
}

static const px_metric metrics[] = {
    {"loss", "nat", "mean negative log-likelihood of the minibatch's target tokens"},
    {"perplexity", "1", "exp(loss)"},
    {"grad_norm", "1", "Euclidean norm of the gradient before clipping"},
    {"lr", "1", "learning rate applied in this step"},
    {"num_steps_skipped", "1", "1 where this optimizer step was skipped because the gradient was not finite, else 0"},
    {"epoch", "1", "passes over the training data so far"},
    {"num_tokens", "token", "training tokens so far, prompts included"},
    {"tokens_per_s", "token/s", "tokens of this step / timers/learn"},
    {"learn_gflop_per_s", "GFLOP/s", "products and attention of all ranks together / timers/learn"},
    {"timers/learn", "s", "forward, backward, reduction and optimizer step"},
};
static const px_metric evaluation_metrics[] = {
    {"loss", "nat", "mean negative log-likelihood of the validation data's target tokens"},
    {"perplexity", "1", "exp(loss)"},
    {"num_tokens", "token", "target tokens of the validation data"},
};
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

const px_algorithm px_algorithm_pretrain = {"pretrain", metrics, evaluation_metrics, COUNT(metrics),
                                            COUNT(evaluation_metrics), iterate, evaluate, destroy};
const px_algorithm px_algorithm_sft = {"sft", metrics, evaluation_metrics, COUNT(metrics), COUNT(evaluation_metrics),
                                       iterate, evaluate, destroy};
