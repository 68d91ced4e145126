/* Where a stage stands: what an earlier start of it has left, and whether this one may go on from there. */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The iteration after which the run file says that the stage was done; -1: it does not. */
static int64_t finished_after(const px_session *session)
{
    char path[PX_PATH_MAX];
    px_frame segments;
    if (px_path_join(path, sizeof path, session->dir, "run.h5") != PX_OK || !px_file_exists(path)) {
        return -1;
    }
    if (px_frame_read(path, "/segments", &segments) != PX_OK) { /* told where the file is opened to be written */
        px_error_clear();
        return -1;
    }
    int reason = px_frame_column(&segments, "reason"), last = px_frame_column(&segments, "last_iteration");
    int64_t row = segments.rows - 1, iteration = -1;
    if (row >= 0 && reason >= 0 && last >= 0 && strcmp(px_frame_text(&segments, reason, row), "done") == 0) {
        iteration = (int64_t)px_frame_number(&segments, last, row);
    }
    px_frame_free(&segments);
    return iteration;
}

/* Of px_stage_compare's lines: does one begin so? */
static bool tells_of(const char *changed, const char *front)
{
    for (const char *line = changed; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, front, strlen(front)) == 0) {
            return true;
        }
    }
    return false;
}

/* px_stage_compare with the settings that config.yaml says the run was done with; *there: it is there. */
static px_status compare(const px_session *session, px_buf *changed, bool *there)
{
    char config[PX_PATH_MAX];
    PX_TRY(px_path_join(config, sizeof config, session->dir, "config.yaml"));
    *there = px_file_exists(config);
    return *there ? px_stage_compare(session->stage, config, changed) : PX_OK;
}

static bool has_result(const px_session *session, const char *module)
{
    char path[PX_PATH_MAX];
    return px_path_join(path, sizeof path, session->dir, module) == PX_OK && px_dir_exists(path);
}

static const char *main_module(const px_session *session)
{
    return session->algorithm == &px_algorithm_reward ? "reward" : "policy";
}

/* Has another stop than at the last start? */
static px_status find_other_stop(const px_session *session, bool *other)
{
    px_buf changed = {0};
    bool there;
    px_status status = compare(session, &changed, &there);
    *other = tells_of(changed.data, "stop.");
    px_buf_free(&changed);
    return status;
}

/* What a later stage began from stays as it was: going on would exchange its reference, and what it is a result of. */
static px_status check_result(const px_session *session, int64_t finished)
{
    bool other = false;
    const char *later = finished >= 0 ? px_stage_begun_from(session) : NULL;
    PX_TRY(later != NULL ? find_other_stop(session, &other) : PX_OK);
    return !other ? PX_OK : px_fail(PX_CONFIG, "%s: stop: stage %s is done and stage %s has begun from its result; valid is the stop "
                                    "that it had (config.yaml there), or a new run (another run.dir, or --fresh)", session->dir,
                                    px_stage_name(session->stage), later);
}

/* A finished stage whose checkpoints were removed is not trained again unasked: its results stand, and it can only not go on. */
static px_status find_end(px_session *session, int64_t iteration)
{
    bool more;
    if (iteration < 0) {
        return PX_OK;
    }
    PX_TRY(find_other_stop(session, &more));
    if (more || !has_result(session, main_module(session))) {
        return px_fail(PX_DATA, "%s: finished after iteration %lld and has %s; valid is one put back from a copy, or --fresh for a "
                       "new run (the old one is kept beside it)", session->dir, (long long)iteration,
                       more ? "no checkpoint any more to go on from to another stop" : "neither results nor a checkpoint any more");
    }
    session->over = true;
    session->start = iteration;
    px_log(PX_NOTE, "%s: finished after iteration %lld; it has no checkpoint any more and cannot go on, its results are left as "
           "they are", session->dir, (long long)iteration);
    return PX_OK;
}

/* Done, with the same settings and its results there: nothing of it is read or written again. Other settings than before are
 * not judged here. */
static bool is_over(const px_session *session, int64_t finished)
{
    px_buf changed = {0};
    bool there, same = finished >= 0 && compare(session, &changed, &there) == PX_OK && there && changed.length == 0;
    px_buf_free(&changed);
    px_error_clear();
    return same && has_result(session, main_module(session)) &&
           (session->algorithm != &px_algorithm_ppo || has_result(session, "critic"));
}

/* ---- branches ---------------------------------------------------------------------------------------------------- */

/* Also of a checkpoint that is gone meanwhile. */
static void name_absolute(const char *path, char out[PX_PATH_MAX])
{
    char here[PX_PATH_MAX], joined[PX_PATH_MAX];
    if (realpath(path, out) != NULL) {
        return;
    }
    bool relative = path[0] != '/' && getcwd(here, sizeof here) != NULL && px_path_join(joined, sizeof joined, here, path) == PX_OK;
    snprintf(out, PX_PATH_MAX, "%s", relative ? joined : path);
}

/* The checkpoint that the stage began from lies by name in its directory: the command that began it goes on, and one that names
 * another checkpoint is refused instead of going on from something else than it says. */
static px_status write_branch(const px_session *session)
{
    char path[PX_PATH_MAX], name[PX_PATH_MAX];
    name_absolute(session->run->options.from, name);
    PX_TRY(px_path_join(path, sizeof path, session->dir, "branched_from"));
    return px_file_write(path, name, strlen(name));
}

static px_status check_branch(const px_session *session)
{
    const char *branch = session->run->options.from;
    char path[PX_PATH_MAX], name[PX_PATH_MAX];
    px_buf begun = {0};
    if (branch == NULL) {
        return PX_OK;
    }
    PX_TRY(px_path_join(path, sizeof path, session->dir, "branched_from"));
    bool known = px_file_exists(path), one = px_config_stage_count(session->run->config) == 1 || session->run->options.stage != NULL;
    PX_TRY(known ? px_file_read(path, PX_PATH_MAX, &begun) : PX_OK);
    name_absolute(branch, name);
    bool same = known ? begun.data != NULL && strcmp(begun.data, name) == 0 : session->over && !one; /* an earlier stage's is not meant */
    px_status status = same ? PX_OK : px_fail(PX_CONFIG, "--from %s: the run in %s began %s%s; valid is the command without --from, which "
                                              "continues it, or another run.dir for a new run", branch, session->dir,
                                              known ? "from " : "from no checkpoint", known && begun.data != NULL ? begun.data : "");
    px_buf_free(&begun);
    return status;
}

px_status px_session_find(px_session *session, char *from, size_t size)
{
    px_buf skipped = {0};
    bool found = false;
    int damaged = 0;
    session->start = 0;
    from[0] = '\0';
    if (px_dist_rank() != 0) { /* one rank reads and hashes for all */
        return PX_OK;
    }
    int64_t finished = finished_after(session);
    if (is_over(session, finished)) {
        session->over = true;
        session->start = finished;
        px_log(PX_INFO, "%s: done after iteration %lld, left as it is", session->dir, (long long)session->start);
        return check_branch(session);
    }
    px_status status = px_dir_exists(session->dir) ? px_checkpoint_latest(session->dir, from, size, &session->start, &found,
                                                                          &damaged, &skipped) : PX_OK;
    if (status == PX_OK && skipped.length > 0) {
        px_log(PX_WARNING, "checkpoints that cannot be used: %s", skipped.data);
    }
    session->skipped = skipped;
    if (!found) {
        from[0] = '\0';
        session->start = 0;
    }
    const char *branch = session->run->options.from;
    if (status == PX_OK && !found && branch != NULL) { /* a new run that goes on where that checkpoint stood */
        PX_TRY(finished >= 0 ? check_branch(session) : PX_OK);
        PX_TRY(px_checkpoint_verify(branch, &session->start));
        snprintf(from, size, "%s", branch);
        session->branches = true;
    } else if (status == PX_OK && !found && damaged > 0) { /* what was learnt is not thrown away unasked */
        return px_fail(PX_DATA, "%s: none of its %d checkpoints can be used (the first: %.*s); valid is a directory with one that "
                       "can, from a copy, or --fresh for a new run (the old one is kept beside it)", session->dir, damaged,
                       (int)strcspn(skipped.data, "\n"), skipped.data);
    } else if (status == PX_OK && !found) {
        return find_end(session, finished);
    }
    PX_TRY(status == PX_OK && found ? check_branch(session) : status);
    return found ? check_result(session, finished) : PX_OK;
}

/* An event a line. */
static void record_lines(px_session *session, px_buf *lines, const char *kind)
{
    char *rest = lines->data, *line;
    while (rest != NULL && (line = strsep(&rest, "\n")) != NULL) {
        if (line[0] != '\0' && px_dist_rank() == 0) {
            px_trainer_event(&session->trainer, session->start, kind, "%s", line + strspn(line, " "));
        }
    }
}

static px_status write_config(const px_session *session)
{
    char path[PX_PATH_MAX];
    px_buf text = {0};
    PX_TRY(px_path_join(path, sizeof path, session->dir, "config.yaml"));
    px_status status = px_stage_dump(session->stage, &text);
    if (status == PX_OK) {
        status = px_file_write(path, text.data, text.length);
    }
    px_buf_free(&text);
    return status;
}

px_status px_session_record_start(px_session *session)
{
    record_lines(session, &session->skipped, "checkpoint_skipped");
    record_lines(session, &session->changed, "setting_changed");
    return session->changed.length > 0 ? write_config(session) : PX_OK; /* only rank 0 has looked */
}

px_status px_session_settle(px_session *session, bool resume)
{
    if (px_dist_rank() != 0) {
        return PX_OK;
    }
    bool there = false;
    PX_TRY(px_dir_create(session->dir));
    PX_TRY(px_temporaries_remove(session->dir));
    PX_TRY(session->branches ? write_branch(session) : PX_OK);
    PX_TRY(resume ? compare(session, &session->changed, &there) : PX_OK);
    if (resume && !there && !session->branches) {
        px_log(PX_WARNING, "%s has no config.yaml any more: whether the settings are still those of the run cannot be told", session->dir);
    }
    const char *changed = session->changed.data;
    session->end_moved = tells_of(changed, "stop.iterations:") || tells_of(changed, "stop.steps:") || tells_of(changed, "stop.epochs:");
    return there ? PX_OK : write_config(session); /* what the run was done with stays until it goes on: a start may be refused yet */
}

/* A finished stage's table comes from its run file, so that a later start shows it too. */
static px_status recall(px_session *session)
{
    char path[PX_PATH_MAX];
    PX_TRY(px_path_join(path, sizeof path, session->dir, "run.h5"));
    for (int which = 0; which < 2; which++) {
        px_frame frame;
        px_column *columns = which == 0 ? session->columns : session->evaluation_columns;
        int count = which == 0 ? session->column_count : session->evaluation_count;
        PX_TRY(px_frame_read(path, which == 0 ? "/metrics" : "/evaluation", &frame));
        if (which == 1 && frame.rows > 0) {
            session->evaluated = (int64_t)px_frame_number(&frame, 0, frame.rows - 1);
        }
        for (int c = 0; c < count && frame.rows > 0; c++) {
            int at = px_frame_column(&frame, columns[c].name);
            if (at < 0) {
                continue;
            }
            double last = px_frame_number(&frame, at, frame.rows - 1);
            if (which == 0) {
                session->row[c] = last;
            } else {
                session->evaluation_row[c] = last;
                session->first_evaluation[c] = px_frame_number(&frame, at, 0);
            }
        }
        px_frame_free(&frame);
    }
    return PX_OK;
}

/* What rank 0 has read, for all: one file system may show its files to other nodes later. */
px_status px_session_recall(px_session *session)
{
    PX_TRY(px_agree(px_dist_rank() == 0 ? recall(session) : PX_OK));
    px_bcast(&session->evaluated, sizeof session->evaluated, 0);
    px_bcast(session->row, (size_t)session->column_count * sizeof *session->row, 0);
    px_bcast(session->evaluation_row, (size_t)session->evaluation_count * sizeof *session->evaluation_row, 0);
    px_bcast(session->first_evaluation, (size_t)session->evaluation_count * sizeof *session->first_evaluation, 0);
    return PX_OK;
}

/* Of a schedule that leads to the stage's end, another end makes another one: the rate may jump. */
void px_session_note_schedule(const px_session *session)
{
    const px_learner *learner = &session->trainer.learners[0].learner;
    const px_schedule *schedule = &learner->config.schedule;
    const double *before = px_session_metric(session, "lr");
    if (!session->end_moved || schedule->kind == PX_CONSTANT || before == NULL || session->start >= session->total) {
        return;
    }
    px_log(PX_NOTE, "training.lr_schedule %s now ends after %s %lld: the learning rate was %.3g in the last step and is %.3g in the "
           "next", px_stage_text(session->stage, "training.lr_schedule"),
           session->algorithm == &px_algorithm_ppo ? "iteration" : "step", (long long)session->total, *before,
           learner->config.lr * px_schedule_at(schedule, learner->steps));
}
