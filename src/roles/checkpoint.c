/* What a checkpoint holds: a Hugging Face directory for each learner, and in state.h5 the moments and every counter. */
#include "run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ATTRIBUTES = PX_MAX_COUNTERS + 16 };

/* Named views of both moments of all learners: "policy/m/model.norm.weight". Names live in *names. */
static px_status list_moments(px_session *session, px_array **arrays, int *count, px_buf *names)
{
    px_trainer *trainer = &session->trainer;
    int total = 0;
    for (int l = 0; l < trainer->learner_count; l++) {
        total += 2 * trainer->learners[l].learner.model.param_count;
    }
    *arrays = px_alloc_array((size_t)total, sizeof **arrays, "names of moments");
    size_t *places = px_alloc_array((size_t)total, sizeof *places, "names of moments");
    px_status status = *arrays != NULL && places != NULL ? PX_OK : px_error_code();
    int n = 0;
    for (int l = 0; status == PX_OK && l < trainer->learner_count; l++) {
        px_learner *learner = &trainer->learners[l].learner;
        if (learner->m == NULL) { /* learnt by other ranks */
            continue;
        }
        for (int moment = 0; moment < 2; moment++) {
            px_model_arrays(&learner->model, moment == 0 ? learner->m : learner->v, *arrays + n);
            for (int p = 0; status == PX_OK && p < learner->model.param_count; p++, n++) {
                places[n] = names->length;
                status = px_buf_printf(names, "%s/%s/%s%c", trainer->learners[l].name, moment == 0 ? "m" : "v",
                                       learner->model.params[p].name, '\0');
            }
        }
    }
    for (int i = 0; status == PX_OK && i < n; i++) {
        (*arrays)[i].name = names->data + places[i];
    }
    *count = n;
    px_free(places);
    return status;
}

/* Counters of trainer and learners as attributes; the same list is read back by name. */
static int list_counters(px_session *session, px_attribute *attributes)
{
    px_trainer *trainer = &session->trainer;
    static char names[PX_MAX_LEARNERS][64];
    int n = 0;
    for (int l = 0; l < trainer->learner_count; l++) {
        snprintf(names[l], sizeof names[l], "%s_optimizer_steps", trainer->learners[l].name);
        attributes[n++] = (px_attribute){.name = names[l], .type = 'i', .i = trainer->learners[l].learner.steps};
    }
    for (int c = 0; c < trainer->counter_count; c++) {
        attributes[n++] = (px_attribute){.name = trainer->counters[c].name, .type = 'f', .f = *trainer->counters[c].value};
    }
    attributes[n++] = (px_attribute){.name = "skipped_in_row", .type = 'i', .i = trainer->skipped_in_row};
    attributes[n++] = (px_attribute){.name = "stage_seconds", .type = 'f', .f = session->stage_seconds};
    attributes[n++] = (px_attribute){.name = "best", .type = 'f', .f = session->best};
    attributes[n++] = (px_attribute){.name = "best_iteration", .type = 'i', .i = session->best_iteration};
    attributes[n++] = (px_attribute){.name = "data_hash", .type = 'i', .i = (int64_t)session->data_hash};
    attributes[n++] = (px_attribute){.name = "seed", .type = 'i', .i = (int64_t)trainer->seed};
    return n;
}

static const char *const frozen_names[PX_FROZEN] = {"reference_hash", "reward_hash"};

static int list_frozen(const px_session *session, px_attribute *attributes)
{
    for (int which = 0; which < PX_FROZEN; which++) {
        attributes[which] = (px_attribute){.name = frozen_names[which], .type = 'i', .i = (int64_t)session->frozen_hash[which]};
    }
    return PX_FROZEN;
}

static const char *tokenizer_dir(const px_session *session)
{
    return session->tokenizer_dir[0] != '\0' ? session->tokenizer_dir : NULL;
}

static px_status save_learner(const px_session *session, const px_model *model, const char *dir)
{
    const char *tokenizer = tokenizer_dir(session);
    const px_renderer *automatic = NULL;
    PX_TRY(tokenizer != NULL ? px_tokenizer_extract(tokenizer, dir) : PX_OK);
    PX_TRY(px_model_save(model, dir, PX_F32, tokenizer));
    if (session->renderer == NULL) {
        return PX_OK;
    }
    if (px_renderer_find(&automatic, "auto", session->tokenizer) != PX_OK) {
        px_error_clear();
    }
    return automatic == session->renderer ? PX_OK : px_renderer_note(dir, session->renderer);
}

static px_status write_learner(const px_session *session, int number, const char *path)
{
    char dir[PX_PATH_MAX];
    PX_TRY(px_path_join(dir, sizeof dir, path, session->trainer.learners[number].name));
    PX_TRY(px_dir_create(dir));
    return save_learner(session, &session->trainer.learners[number].learner.model, dir);
}

/* Gives back the disk that a failed attempt took. */
static px_status discard(const char *path)
{
    px_error why = px_error_keep();
    px_tree_remove(path);
    return px_error_restore(&why);
}

/* Counters and clocks as the driver has them. Collective. */
static void share_counters(px_attribute *attributes, int n)
{
    struct number {
        int64_t i;
        double f;
    } numbers[MAX_ATTRIBUTES];
    for (int k = 0; k < n; k++) {
        numbers[k] = (struct number){attributes[k].i, attributes[k].f};
    }
    px_bcast(numbers, (size_t)n * sizeof *numbers, 0);
    for (int k = 0; k < n; k++) {
        attributes[k].i = numbers[k].i;
        attributes[k].f = numbers[k].f;
    }
}

static px_status write_state(px_session *session, const px_checkpoint_writer *writer, int64_t iteration,
                             px_attribute *attributes, int n)
{
    px_array *arrays = NULL;
    px_buf names = {0};
    int count = 0;
    attributes[n++] = (px_attribute){.name = "iteration", .type = 'i', .i = iteration};
    attributes[n++] = (px_attribute){.name = "isa", .type = 's', .s = px_compute_isa()};
    attributes[n++] = (px_attribute){.name = "layout", .type = 's',
                                     .s = "moments of linear layers are [output, input], GPT-2's too, whose weights' file has "
                                          "them as [input, output]"};
    px_status status = list_moments(session, &arrays, &count, &names);
    if (status == PX_OK) {
        status = px_checkpoint_state(writer, arrays, count, attributes, n);
    }
    px_free(arrays);
    px_buf_free(&names);
    return status;
}

/* The ranks that write, the driver first: those that learn on its node, so that none of them sees an old copy of a directory that
 * another node has written into. They stay the same for the stage. */
static px_status find_writers(px_session *session)
{
    int here = px_world_node(px_world_rank()), drivers = here;
    int64_t *able = px_alloc_array((size_t)px_dist_size(), sizeof *able, "the ranks that write");
    PX_TRY(px_agree(able != NULL ? PX_OK : px_error_code()));
    px_bcast(&drivers, sizeof drivers, 0);
    px_gather_i64(here == drivers && session->trainer.learners[0].learner.m != NULL, able);
    session->writer = -1;
    for (int rank = 0; rank < px_dist_size(); rank++) {
        if (rank == px_dist_rank() && able[rank]) {
            session->writer = session->writers;
        }
        session->writers += able[rank] != 0;
    }
    px_free(able);
    return PX_OK;
}

static bool is_mine(const px_session *session, int part)
{
    return session->writer == (part < session->writers ? part : 0);
}

/* This rank's parts: the samples are the driver's, and so is what there are no more ranks for. */
static px_status write_parts(px_session *session, const px_checkpoint_writer *writer, int64_t iteration, px_attribute *attributes,
                             int n)
{
    int part = 0;
    if (session->unwritten > 0 && is_mine(session, part++)) {
        PX_TRY(px_session_write_samples(session));
        px_phase_set("checkpoint", iteration);
    }
    if (is_mine(session, part++)) {
        PX_TRY(write_state(session, writer, iteration, attributes, n));
    }
    for (int l = 0; l < session->trainer.learner_count; l++) {
        if (is_mine(session, part++)) {
            PX_TRY(write_learner(session, l, writer->path));
        }
    }
    return PX_OK;
}

/* What rank 0 does before and after the parts. */
static px_status begin(px_session *session, px_checkpoint_writer *writer, const char *name)
{
    PX_TRY(px_lock_check(session->run->lock));
    return px_checkpoint_begin(writer, session->dir, name);
}

static px_status commit(px_session *session, px_checkpoint_writer *writer, px_status written, int64_t iteration, const char *name)
{
    if (written == PX_OK) { /* a run that took over while we wrote has the last word */
        written = px_checkpoint_commit(writer, iteration, px_run_file_segment(session->file), session->run->lock);
    }
    return written == PX_OK ? px_checkpoint_mark_latest(session->dir, name) : discard(writer->path);
}

/* What one rank writes is what all would write: a silent difference must neither go on nor be kept. Learners are compared, and
 * scorers as far as they hold weights. */
static px_status check_replicas(const px_session *session, int64_t iteration)
{
    px_status status = PX_OK;
    px_team(true);
    for (int l = 0; l < session->trainer.learner_count; l++) {
        const px_learner *learner = &session->trainer.learners[l].learner;
        if (learner->model.weights != NULL && !px_learner_in_step(learner)) {
            status = px_fail(PX_BUG, "the ranks hold different weights of %s after iteration %lld: a processor or memory that "
                             "errs, or a fault of this program; the same command goes on from what was saved before",
                             session->trainer.learners[l].name, (long long)iteration);
        }
    }
    px_team(false);
    return px_agree(status);
}

px_status px_session_save(px_session *session, int64_t iteration, const char *name)
{
    px_checkpoint_writer writer = {0};
    px_attribute attributes[MAX_ATTRIBUTES];
    int n = list_counters(session, attributes);
    n += list_frozen(session, attributes + n);
    px_phase_set("checkpoint", iteration);
    PX_TRY(check_replicas(session, iteration));
    PX_TRY(session->writers == 0 ? find_writers(session) : PX_OK);
    PX_TRY(px_agree(px_dist_rank() == 0 ? begin(session, &writer, name) : PX_OK));
    px_bcast(&writer, sizeof writer, 0);
    share_counters(attributes, n);
    px_status status = px_agree(write_parts(session, &writer, iteration, attributes, n));
    PX_TRY(px_agree(px_dist_rank() == 0 ? commit(session, &writer, status, iteration, name) : status));
    session->unwritten = 0;
    session->saved = iteration;
    return PX_OK;
}

px_status px_session_save_samples(px_session *session)
{
    bool writes = session->unwritten > 0 && px_dist_rank() == 0;
    px_status status = px_agree(writes ? px_session_write_samples(session) : PX_OK);
    session->unwritten = 0;
    return status;
}

/* Whether this iteration is better than all before; before it is saved, so that its checkpoint knows. */
static void judge(px_session *session, int64_t iteration)
{
    const char *metric = px_stage_text(session->stage, "checkpointing.keep_best");
    const double *measured = metric != NULL ? px_session_metric(session, metric) : NULL;
    double value = measured != NULL ? *measured : NAN;
    bool low = strcmp(px_stage_text(session->stage, "checkpointing.keep_best_mode"), "min") == 0;
    if (isfinite(value) && !(isfinite(session->best) && (low ? value >= session->best : value <= session->best))) {
        session->best = value;
        session->best_iteration = iteration;
    }
}

static void name_checkpoint(char out[64], int64_t iteration)
{
    snprintf(out, 64, "checkpoint_%06lld", (long long)iteration);
}

/* The text file `best` names the best checkpoint, for people and for export. */
static px_status mark_best(const px_session *session)
{
    char path[PX_PATH_MAX], name[64], line[80];
    if (session->best_iteration < 0) {
        return PX_OK;
    }
    PX_TRY(px_path_join(path, sizeof path, session->dir, "best"));
    name_checkpoint(name, session->best_iteration);
    snprintf(line, sizeof line, "%s\n", name);
    return px_file_write(path, line, strlen(line));
}

/* The best one outlives the others, and the state before training where it was asked for. */
static bool spared(void *arg, int64_t iteration)
{
    const px_session *session = arg;
    return iteration == session->best_iteration ||
           (iteration == 0 && px_stage_bool(session->stage, "checkpointing.initial"));
}

/* After a numbered checkpoint is safe. */
static px_status tidy(px_session *session)
{
    double keep;
    PX_TRY(mark_best(session));
    return px_stage_number(session->stage, "checkpointing.keep", &keep)
               ? px_checkpoint_prune(session->dir, (int64_t)keep, spared, session) : PX_OK;
}

/* A reward model that others may read has its mean; while training goes on, that of some rows has to do. */
static px_status save_numbered(px_session *session, int64_t iteration, bool last)
{
    enum { SOME_ROWS = 256 };
    char name[64];
    bool reward = session->algorithm == &px_algorithm_reward;
    name_checkpoint(name, iteration);
    judge(session, iteration);
    PX_TRY(reward ? px_rm_center(&session->trainer, last ? INT64_MAX : SOME_ROWS) : PX_OK);
    PX_TRY(px_session_save(session, iteration, name));
    if (reward && !last) {
        px_rm_uncenter(&session->trainer);
    }
    return px_agree(px_dist_rank() == 0 ? tidy(session) : PX_OK);
}

px_status px_session_save_due(px_session *session, int64_t iteration, bool last)
{
    const px_stage *stage = session->stage;
    int64_t interval = px_stage_int(stage, "checkpointing.interval");
    int64_t recovery = px_stage_int(stage, "checkpointing.recovery_interval");
    bool initial = iteration == 0 && px_stage_bool(stage, "checkpointing.initial");
    bool numbered = initial || (iteration > 0 && (last || (interval > 0 && iteration % interval == 0)));
    if (numbered) {
        return save_numbered(session, iteration, last);
    }
    if (iteration > 0 && recovery > 0 && iteration % recovery == 0) {
        session->recovery_slot ^= 1;
        return px_session_save(session, iteration, session->recovery_slot ? "recovery_b" : "recovery_a");
    }
    return px_session_save_samples(session);
}

/* What was best when the checkpoint was made. A run that branches off has no part in it. */
static px_status recall_best(px_session *session)
{
    char path[PX_PATH_MAX], name[64];
    name_checkpoint(name, session->best_iteration);
    PX_TRY(px_path_join(path, sizeof path, session->dir, name));
    if (session->best_iteration >= 0 && !px_dir_exists(path)) {
        session->best = NAN;
        session->best_iteration = -1;
    }
    return mark_best(session);
}

static px_status recall_isa(px_session *session, const char *from)
{
    px_attribute isa = {.name = "isa", .type = 's'};
    PX_TRY(px_checkpoint_load_state(from, NULL, 0, &isa, 1));
    snprintf(session->isa_before, sizeof session->isa_before, "%s", isa.s);
    px_free((void *)(uintptr_t)isa.s);
    return PX_OK;
}

/* The reference and the reward model that the samples so far were measured with. A branch may have others. */
static px_status check_frozen(const px_session *session, const char *from)
{
    px_attribute attributes[PX_FROZEN];
    list_frozen(session, attributes);
    const char *branch = session->run->options.from;
    if (px_dist_rank() != 0 || (branch != NULL && strcmp(from, branch) == 0)) {
        return PX_OK;
    }
    PX_TRY(px_checkpoint_load_state(from, NULL, 0, attributes, PX_FROZEN));
    for (int which = 0; which < PX_FROZEN; which++) {
        if ((uint64_t)attributes[which].i != session->frozen_hash[which]) {
            char dir[PX_PATH_MAX];
            PX_TRY(px_module_dir(session, which == 0 ? px_reference_module(session) : "reward", dir, sizeof dir));
            return px_fail(PX_DATA, "%s: the weights of the %s are not those that this run was started with (%s); valid are the same "
                           "weights, or --fresh for a new run", from, which == 0 ? "reference" : "reward model", dir);
        }
    }
    return PX_OK;
}

px_status px_session_restore(px_session *session, const char *from, int64_t iteration)
{
    px_trainer *trainer = &session->trainer;
    px_array *arrays = NULL;
    px_buf names = {0};
    int count = 0;
    px_attribute attributes[MAX_ATTRIBUTES];
    px_status status = list_moments(session, &arrays, &count, &names);
    int n = list_counters(session, attributes);
    uint64_t data_hash = session->data_hash;
    if (status == PX_OK) {
        status = px_checkpoint_load_state(from, arrays, count, attributes, n);
    }
    px_free(arrays);
    px_buf_free(&names);
    PX_TRY(status);
    int at = 0;
    for (int l = 0; l < trainer->learner_count; l++) {
        trainer->learners[l].learner.steps = attributes[at++].i;
    }
    for (int c = 0; c < trainer->counter_count; c++) {
        *trainer->counters[c].value = attributes[at++].f;
    }
    trainer->skipped_in_row = attributes[at++].i;
    session->stage_seconds = attributes[at++].f;
    session->best = attributes[at++].f;
    session->best_iteration = attributes[at++].i;
    if ((uint64_t)attributes[at++].i != data_hash) {
        return px_fail(PX_DATA, "%s: the data is not what this run was started with (another hash of its token ids); valid is "
                       "the same data, or --fresh for a new run", from);
    }
    PX_TRY(check_frozen(session, from));
    session->saved = iteration;
    if (px_dist_rank() != 0) {
        return PX_OK;
    }
    PX_TRY(recall_isa(session, from));
    return recall_best(session);
}

/* The stage's result: the trained model as a directory of its own, replaced by renaming. */
px_status px_session_results(px_session *session)
{
    if (px_dist_rank() != 0) {
        return PX_OK;
    }
    for (int l = 0; l < session->trainer.learner_count; l++) {
        char final[PX_PATH_MAX], fresh[PX_PATH_MAX], old[PX_PATH_MAX], name[80];
        const char *module = session->trainer.learners[l].name;
        PX_TRY(px_path_join(final, sizeof final, session->dir, module));
        PX_TRY(px_temporary_path(fresh, sizeof fresh, final));
        snprintf(name, sizeof name, "%s.old", module);
        PX_TRY(px_path_join(old, sizeof old, session->dir, name));
        PX_TRY(px_tree_remove(fresh));
        PX_TRY(px_tree_remove(old));
        PX_TRY(px_dir_create(fresh));
        px_status status = save_learner(session, &session->trainer.learners[l].learner.model, fresh);
        if (status != PX_OK) {
            return discard(fresh);
        }
        PX_TRY(px_lock_check(session->run->lock));
        if (px_dir_exists(final) && rename(final, old) != 0) {
            return px_fail(PX_IO, "%s: cannot be moved aside: %s", final, strerror(errno));
        }
        if (rename(fresh, final) != 0) {
            return px_fail(PX_IO, "%s: cannot be put into place: %s", final, strerror(errno));
        }
        PX_TRY(px_tree_remove(old));
    }
    return px_dir_sync(session->dir);
}
