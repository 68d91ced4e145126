/* Language-model training: pretraining on texts and supervised fine-tuning on completions are one trainer. */
#include "lm_batches.h"
#include "phalanx/dist.h"
#include "trainer.h"

#include <math.h>
#include <string.h>

typedef struct lm {
    px_lm_config config;
    px_lm_batches batches;
    double cursor;        /* pieces taken so far, over all epochs */
    double tokens_lifetime;
    /* one minibatch */
    double *sums;         /* [batches.most][STATS] */
    int64_t targets;
    px_work work;
    px_ragged ragged;
} lm;

enum { STATS = 2 }; /* per item: sum of negative log-likelihoods, target tokens */

static void add_sequence(px_ragged *ragged, const px_row *row, const px_piece *p, int64_t item)
{
    int at = px_ragged_add(ragged, row->ids + p->offset, p->length);
    for (int t = 1; t < p->length; t++) {
        int place = p->offset + t;
        if (row->mask != NULL ? row->mask[place] : place >= row->prompt_length) {
            px_ragged_row(ragged, at + t - 1, row->ids[place], item);
        }
    }
}

static px_status next_batch(lm *self)
{
    PX_TRY(px_lm_batches_next(&self->batches, &self->cursor));
    self->targets = 0;
    for (int64_t i = 0; i < self->batches.count; i++) {
        px_row row;
        px_dataset_row(self->config.train, self->batches.pieces[i].row, &row);
        self->targets += px_piece_targets(&row, &self->batches.pieces[i]);
        self->tokens_lifetime += (double)self->batches.lengths[i];
    }
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
        px_dataset_row(self->config.train, self->batches.pieces[i].row, &row);
        add_sequence(ragged, &row, &self->batches.pieces[i], i);
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
    PX_TRY(px_agree(next_batch(self)));
    px_work_plan(&self->work, self->batches.lengths, self->batches.count, learner->config.exact, px_dist_rank(), px_dist_size());
    px_loss loss = {run_loss, self};
    px_step step;
    px_status status = px_learner_step(learner, &self->work, self->batches.lengths, &loss, &step);
    if (status != PX_OK) {
        self->cursor = cursor;
        self->tokens_lifetime = tokens_before;
        return status;
    }
    px_work_gather(&self->work, self->sums, STATS);
    double nll = 0.0, tokens = 0.0;
    for (int64_t i = 0; i < self->batches.count; i++) {
        nll += self->sums[i * STATS];
        tokens += (double)self->batches.lengths[i];
    }
    double seconds = px_now() - start;
    work = px_compute_flops() - work;
    px_trainer_set(trainer, "loss", nll / (double)self->targets);
    px_trainer_set(trainer, "perplexity", exp(nll / (double)self->targets));
    px_trainer_set(trainer, "grad_norm", step.grad_norm);
    px_trainer_set(trainer, "lr", step.lr);
    px_trainer_set(trainer, "num_tokens", self->tokens_lifetime);
    px_trainer_set(trainer, "epoch", self->cursor / (double)self->batches.order.length);
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
        add_sequence(&e->ragged, &row, &(px_piece){r, at, length}, r);
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
    px_lm_batches_free(&self->batches);
    px_ragged_free(&self->ragged);
    px_free(self->sums);
    px_free(self);
}

size_t px_lm_bytes(const px_lm_config *config)
{
    int64_t most = px_lm_batches_most(config);
    return px_lm_batches_bytes(config) + px_ragged_bytes(px_learner_tokens(&config->learner)) + (size_t)most * STATS * sizeof(double);
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
    PX_TRY(px_lm_batches_init(&self->batches, &self->config, trainer->seed, trainer->stage));
    self->sums = px_alloc_array((size_t)self->batches.most * STATS, sizeof(double), "minibatch sums");
    if (self->sums == NULL) {
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
