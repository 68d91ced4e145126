#include "trainer.h"

#include "phalanx/dist.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int find(const px_metric *metrics, int count, const char *name)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(metrics[i].name, name) == 0) {
            return i;
        }
    }
    px_bug(__FILE__, __LINE__, name);
}

px_status px_trainer_begin(px_trainer *trainer, const px_algorithm *algorithm)
{
    trainer->algorithm = algorithm;
    trainer->values = px_alloc_array((size_t)algorithm->metric_count, sizeof(double), "metrics");
    trainer->evaluated = px_alloc_array((size_t)algorithm->evaluation_count, sizeof(double), "evaluation metrics");
    if (trainer->values == NULL || trainer->evaluated == NULL) {
        return px_error_code();
    }
    px_trainer_clear(trainer);
    return PX_OK;
}

void px_trainer_clear(px_trainer *trainer)
{
    for (int i = 0; i < trainer->algorithm->metric_count; i++) {
        trainer->values[i] = NAN;
    }
    for (int i = 0; i < trainer->algorithm->evaluation_count; i++) {
        trainer->evaluated[i] = NAN;
    }
}

px_status px_trainer_skipped(px_trainer *trainer, int64_t iteration, const char *module, bool skipped, int limit)
{
    double *count = &trainer->values[find(trainer->algorithm->metrics, trainer->algorithm->metric_count, "num_steps_skipped")];
    *count = (isnan(*count) ? 0.0 : *count) + (skipped ? 1.0 : 0.0);
    if (!skipped) {
        trainer->skipped_in_row = 0;
        return PX_OK;
    }
    trainer->skipped_in_row++;
    px_trainer_event(trainer, iteration, "step_skipped", "%s: the gradient is not finite; %lld in a row", module,
                     (long long)trainer->skipped_in_row);
    if (limit > 0 && trainer->skipped_in_row >= limit) {
        return px_fail(PX_DIVERGED, "%s: the gradient was not finite %lld times in a row (fault_tolerance.max_skipped_steps "
                       "is %d); lower the learning rate or resume from an earlier checkpoint", module,
                       (long long)trainer->skipped_in_row, limit);
    }
    return PX_OK;
}

void px_trainer_set(px_trainer *trainer, const char *metric, double value)
{
    trainer->values[find(trainer->algorithm->metrics, trainer->algorithm->metric_count, metric)] = value;
}

double px_trainer_get(const px_trainer *trainer, const char *metric)
{
    return trainer->values[find(trainer->algorithm->metrics, trainer->algorithm->metric_count, metric)];
}

void px_trainer_set_evaluation(px_trainer *trainer, const char *metric, double value)
{
    trainer->evaluated[find(trainer->algorithm->evaluation, trainer->algorithm->evaluation_count, metric)] = value;
}

static void event(px_trainer *trainer, int rank, int64_t iteration, const char *kind, const char *format, va_list args)
{
    char text[240];
    vsnprintf(text, sizeof text, format, args);
    if (trainer->events.write != NULL) {
        trainer->events.write(trainer->events.arg, iteration, rank, kind, text);
    }
}

void px_trainer_event(px_trainer *trainer, int64_t iteration, const char *kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    event(trainer, px_dist_rank(), iteration, kind, format, args);
    va_end(args);
}

void px_trainer_event_of(px_trainer *trainer, int rank, int64_t iteration, const char *kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    event(trainer, rank, iteration, kind, format, args);
    va_end(args);
}

void px_trainer_count(px_trainer *trainer, const char *name, double *value)
{
    PX_CHECK(trainer->counter_count < PX_MAX_COUNTERS);
    trainer->counters[trainer->counter_count++] = (px_counter){name, value};
}

void px_trainer_free(px_trainer *trainer)
{
    if (trainer->algorithm != NULL && trainer->self != NULL) {
        trainer->algorithm->destroy(trainer);
    }
    for (int i = 0; i < trainer->learner_count; i++) {
        px_learner_free(&trainer->learners[i].learner);
    }
    px_free(trainer->values);
    px_free(trainer->evaluated);
    *trainer = (px_trainer){0};
}

const px_algorithm *px_algorithm_find(const char *name)
{
    static const px_algorithm *const all[] = {&px_algorithm_pretrain, &px_algorithm_sft, &px_algorithm_reward,
                                              &px_algorithm_ppo};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }
    return NULL;
}
