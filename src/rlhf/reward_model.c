/* Reward model: Bradley-Terry on preference pairs (Stiennon et al. 2020, eq. 1; Ouyang et al. 2022). */
#include "phalanx/dist.h"
#include "trainer.h"

#include <math.h>

typedef struct rm {
    px_rm_config config;
    px_order order;
    double cursor; /* pairs taken so far, over all epochs */
    double tokens_lifetime;
    int64_t *batch;  /* [batch_size] rows of the data set */
    int32_t *tokens; /* [batch_size] of both sequences */
    double *sums;    /* [batch_size][STATS] */
    int64_t items;
    px_work work;
    px_ragged ragged;
    double *values, *dvalues; /* [2 * batch rows of one forward] */
} rm;

enum { CHOSEN, REJECTED, LOSS, STATS };

static int add_pair(px_ragged *ragged, const px_row *row, int64_t item)
{
    int chosen = px_ragged_add(ragged, row->ids, row->length);
    px_ragged_row(ragged, chosen + row->length - 1, 0, item);
    int rejected = px_ragged_add(ragged, row->rejected, row->rejected_length);
    px_ragged_row(ragged, rejected + row->rejected_length - 1, 0, item);
    return row->length + row->rejected_length;
}

static void run_loss(void *arg, px_learner *learner, float *grads, int64_t first, int64_t count)
{
    rm *self = arg;
    px_ragged *ragged = &self->ragged;
    px_ragged_clear(ragged);
    for (int64_t i = first; i < first + count; i++) {
        px_row row;
        px_dataset_row(self->config.train, self->batch[i], &row);
        add_pair(ragged, &row, i);
    }
    px_batch batch = px_ragged_batch(ragged);
    px_engine_forward(learner->engine, &learner->model, &batch);
    px_engine_values(learner->engine, &learner->model, ragged->rows, ragged->row_count, self->values);
    for (int64_t k = 0; k < count; k++) {
        px_row row;
        px_dataset_row(self->config.train, self->batch[first + k], &row);
        double chosen = self->values[2 * k], rejected = self->values[2 * k + 1], gradient;
        double scale = 1.0 / (double)self->items, center = self->config.center_coeff * (chosen + rejected);
        double *sums = self->sums + (first + k) * STATS;
        sums[CHOSEN] = chosen;
        sums[REJECTED] = rejected;
        sums[LOSS] = px_bt_loss(chosen, rejected, row.margin, &gradient) + center * (chosen + rejected);
        self->dvalues[2 * k] = scale * (gradient + 2.0 * center);
        self->dvalues[2 * k + 1] = scale * (-gradient + 2.0 * center);
    }
    px_engine_value_backward(learner->engine, &learner->model, grads, ragged->rows, self->dvalues, ragged->row_count);
    px_learner_backward(learner, grads);
}

static px_status next_batch(rm *self)
{
    int64_t items = self->config.batch_size, end = px_passes(self->config.epochs, self->order.length), left = end - (int64_t)self->cursor;
    items = left > 0 && left < items ? left : items;
    for (int64_t i = 0; i < items; i++) {
        int64_t place = px_order_row(&self->order, (int64_t)self->cursor + i);
        if (place < 0) {
            return px_error_code();
        }
        px_row row;
        px_dataset_row(self->config.train, place, &row);
        self->batch[i] = place;
        self->tokens[i] = row.length + row.rejected_length;
    }
    self->items = items;
    return PX_OK;
}

static px_status iterate(px_trainer *trainer, int64_t iteration)
{
    rm *self = trainer->self;
    px_learner *learner = &trainer->learners[0].learner;
    double start = px_now(), work = px_compute_flops();
    px_trainer_clear(trainer);
    px_phase_set("learn", iteration);
    PX_TRY(px_agree(next_batch(self)));
    px_work_plan(&self->work, self->tokens, self->items, learner->config.exact, px_dist_rank(), px_dist_size());
    px_loss loss = {run_loss, self};
    px_step step;
    PX_TRY(px_learner_step(learner, &self->work, self->tokens, &loss, &step));
    px_work_gather(&self->work, self->sums, STATS);
    double sum = 0.0, right = 0.0, margin = 0.0, mean = 0.0, low = INFINITY, high = -INFINITY, tokens = 0.0;
    for (int64_t i = 0; i < self->items; i++) {
        const double *s = self->sums + i * STATS;
        sum += s[LOSS];
        right += s[CHOSEN] > s[REJECTED];
        margin += s[CHOSEN] - s[REJECTED];
        mean += 0.5 * (s[CHOSEN] + s[REJECTED]);
        low = fmin(low, fmin(s[CHOSEN], s[REJECTED]));
        high = fmax(high, fmax(s[CHOSEN], s[REJECTED]));
        tokens += (double)self->tokens[i];
    }
    self->cursor += (double)self->items;
    self->tokens_lifetime += tokens;
    double n = (double)self->items, seconds = px_now() - start;
    work = px_compute_flops() - work;
    px_trainer_set(trainer, "loss", sum / n);
    px_trainer_set(trainer, "accuracy", right / n);
    px_trainer_set(trainer, "margin", margin / n);
    px_trainer_set(trainer, "mean_reward", mean / n);
    px_trainer_set(trainer, "min_reward", low);
    px_trainer_set(trainer, "max_reward", high);
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

/* Scores of the last token of both sides (PAIRS) or of the one sequence (LM rows) of `rows` rows, evenly spread over the data;
 * table[rows][2], on all ranks. */
static px_status score_rows(px_engine *engine, const px_model *model, const px_dataset *data, int64_t rows, bool pairs,
                            int max_tokens, double *table)
{
    int64_t all = px_dataset_count(data), first, count;
    px_ragged ragged = {0};
    px_status status = px_ragged_alloc(&ragged, max_tokens);
    double *values = px_alloc_array((size_t)max_tokens, sizeof *values, "scores");
    if (status == PX_OK && values == NULL) {
        status = px_error_code();
    }
    status = px_agree(status);
    px_share(rows, px_dist_rank(), px_dist_size(), &first, &count);
    for (int64_t r = first; status == PX_OK && r < first + count;) {
        px_ragged_clear(&ragged);
        int64_t begin = r;
        for (; r < first + count; r++) {
            px_row row;
            px_dataset_row(data, (int64_t)((double)r * (double)all / (double)rows), &row);
            int need = row.length + (pairs ? row.rejected_length : 0);
            if (ragged.tokens > 0 && !px_engine_fits(engine, ragged.sequences + 2, ragged.tokens + need)) {
                break;
            }
            if (pairs) {
                add_pair(&ragged, &row, r);
            } else {
                int at = px_ragged_add(&ragged, row.ids, row.length);
                px_ragged_row(&ragged, at + row.length - 1, 0, r);
            }
        }
        px_batch batch = px_ragged_batch(&ragged);
        px_engine_forward(engine, model, &batch);
        px_engine_values(engine, model, ragged.rows, ragged.row_count, values);
        int each = pairs ? 2 : 1;
        for (int64_t i = begin; i < r; i++) {
            table[2 * i] = values[(i - begin) * each];
            table[2 * i + 1] = pairs ? values[(i - begin) * each + 1] : 0.0;
        }
        status = px_stop_level() > 0 ? PX_STOPPED : PX_OK;
    }
    status = px_agree(status);
    if (status == PX_OK) {
        px_gather_shares(table, 2 * sizeof *table, rows);
    }
    px_ragged_free(&ragged);
    px_free(values);
    return status;
}

static px_status evaluate(px_trainer *trainer, int64_t iteration)
{
    rm *self = trainer->self;
    px_learner *learner = &trainer->learners[0].learner;
    if (self->config.validation == NULL) {
        return PX_OK;
    }
    px_phase_set("evaluate", iteration);
    int64_t rows = px_dataset_count(self->config.validation);
    double *table = px_alloc_array((size_t)rows * 2, sizeof *table, "validation scores");
    px_status status = px_agree(table != NULL ? PX_OK : px_error_code());
    if (status == PX_OK) {
        status = score_rows(learner->engine, &learner->model, self->config.validation, rows, true,
                            px_learner_tokens(&learner->config), table);
    }
    double loss = 0.0, right = 0.0, margin = 0.0, gradient;
    for (int64_t i = 0; status == PX_OK && i < rows; i++) {
        px_row row;
        px_dataset_row(self->config.validation, i, &row);
        loss += px_bt_loss(table[2 * i], table[2 * i + 1], row.margin, &gradient);
        right += table[2 * i] > table[2 * i + 1];
        margin += table[2 * i] - table[2 * i + 1];
    }
    px_free(table);
    PX_TRY(status);
    px_trainer_set_evaluation(trainer, "loss", loss / (double)rows);
    px_trainer_set_evaluation(trainer, "accuracy", right / (double)rows);
    px_trainer_set_evaluation(trainer, "margin", margin / (double)rows);
    return PX_OK;
}

void px_rm_uncenter(px_trainer *trainer)
{
    px_model_config *config = &trainer->learners[0].learner.model.config;
    config->reward_mean = 0.0;
    config->reward_std = 1.0;
}

px_status px_rm_center(px_trainer *trainer, int64_t most)
{
    rm *self = trainer->self;
    px_learner *learner = &trainer->learners[0].learner;
    const px_dataset *data = self->config.demonstrations != NULL ? self->config.demonstrations : self->config.train;
    bool pairs = self->config.demonstrations == NULL;
    int64_t all = px_dataset_count(data), rows = all < most ? all : most;
    double *table = px_alloc_array((size_t)rows * 2, sizeof *table, "demonstration scores");
    px_status status = px_agree(table != NULL ? PX_OK : px_error_code());
    px_rm_uncenter(trainer);
    px_phase_set("center rewards", 0);
    if (status == PX_OK) {
        status = score_rows(learner->engine, &learner->model, data, rows, pairs, px_learner_tokens(&learner->config), table);
    }
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; status == PX_OK && i < rows; i++) {
        sum += table[2 * i];
    }
    double mean = sum / (double)rows;
    for (int64_t i = 0; status == PX_OK && i < rows; i++) {
        squares += (table[2 * i] - mean) * (table[2 * i] - mean);
    }
    px_free(table);
    PX_TRY(status);
    learner->model.config.reward_mean = mean;
    learner->model.config.reward_std = squares > 0.0 ? sqrt(squares / (double)rows) : 1.0;
    return PX_OK;
}

static void destroy(px_trainer *trainer)
{
    rm *self = trainer->self;
    px_order_free(&self->order);
    px_ragged_free(&self->ragged);
    px_free(self->batch);
    px_free(self->tokens);
    px_free(self->sums);
    px_free(self->values);
    px_free(self->dvalues);
    px_free(self);
}

size_t px_rm_bytes(const px_rm_config *config)
{
    int most = px_learner_tokens(&config->learner), part_count;
    const px_part *parts = px_dataset_parts(config->train, &part_count);
    return px_order_bytes(parts, part_count, config->shuffle) + px_ragged_bytes(most) +
           (size_t)most * 2 * sizeof(double) +
           (size_t)config->batch_size * (sizeof(int64_t) + sizeof(int32_t) + STATS * sizeof(double));
}

px_status px_rm_create(px_trainer *trainer, const px_rm_config *config, px_model *model)
{
    PX_TRY(px_trainer_begin(trainer, &px_algorithm_reward));
    rm *self = px_alloc(sizeof *self, "the reward-model trainer");
    if (self == NULL) {
        return px_error_code();
    }
    trainer->self = self;
    self->config = *config;
    int most = px_learner_tokens(&config->learner), part_count;
    const px_part *parts = px_dataset_parts(config->train, &part_count);
    PX_TRY(px_order_init(&self->order, parts, part_count, config->shuffle,
                         px_rng_make(trainer->seed, trainer->stage, PX_RNG_ORDER)));
    PX_TRY(px_ragged_alloc(&self->ragged, most));
    size_t items = (size_t)config->batch_size;
    self->batch = px_alloc_array(items, sizeof(int64_t), "a minibatch");
    self->tokens = px_alloc_array(items, sizeof(int32_t), "minibatch lengths");
    self->sums = px_alloc_array(items * STATS, sizeof(double), "minibatch sums");
    self->values = px_alloc_array((size_t)most, sizeof(double), "scores");
    self->dvalues = px_alloc_array((size_t)most, sizeof(double), "score gradients");
    if (self->batch == NULL || self->tokens == NULL || self->sums == NULL || self->values == NULL || self->dvalues == NULL) {
        return px_error_code();
    }
    trainer->learners[0].name = "reward";
    trainer->learner_count = 1;
    PX_TRY(px_learner_create(&trainer->learners[0].learner, model, &config->learner));
    px_trainer_count(trainer, "cursor", &self->cursor);
    px_trainer_count(trainer, "num_tokens", &self->tokens_lifetime);
    return PX_OK;
}

static const px_metric metrics[] = {
    {"loss", "nat", "mean of -log sigmoid(chosen - rejected - margin), plus the centring term"},
    {"accuracy", "1", "share of pairs whose chosen side scores higher"},
    {"margin", "1", "mean of chosen - rejected"},
    {"mean_reward", "1", "mean score of both sides"},
    {"min_reward", "1", "lowest score in the minibatch"},
    {"max_reward", "1", "highest score in the minibatch"},
    {"grad_norm", "1", "Euclidean norm of the gradient before clipping"},
    {"lr", "1", "learning rate applied in this step"},
    {"num_steps_skipped", "1", "1 where this optimizer step was skipped because the gradient was not finite, else 0"},
    {"epoch", "1", "passes over the training pairs so far"},
    {"num_tokens", "token", "training tokens so far, both sides"},
    {"tokens_per_s", "token/s", "tokens of this step / timers/learn"},
    {"learn_gflop_per_s", "GFLOP/s", "products and attention of all ranks together / timers/learn"},
    {"timers/learn", "s", "forward, backward, reduction and optimizer step"},
};
static const px_metric evaluation_metrics[] = {
    {"loss", "nat", "mean of -log sigmoid(chosen - rejected - margin) on the validation pairs"},
    {"accuracy", "1", "share of validation pairs whose chosen side scores higher"},
    {"margin", "1", "mean of chosen - rejected on the validation pairs"},
};
#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

const px_algorithm px_algorithm_reward = {"reward", metrics, evaluation_metrics, COUNT(metrics), COUNT(evaluation_metrics),
                                          iterate, evaluate, destroy};
