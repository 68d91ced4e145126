/* The sample file of an iteration: enough that an outside program can recompute every number of it. */
#include "run.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TEXT = 32768, SAMPLE_COLUMNS = 16 + PX_MAX_REWARDS };

/* Columns of one table under construction; values are owned. */
typedef struct builder {
    px_column columns[SAMPLE_COLUMNS];
    void *values[SAMPLE_COLUMNS];
    int count;
    int64_t rows;
    px_status status;
} builder;

static void *column(builder *b, const char *name, px_column_type type, int width, const char *units, const char *meaning)
{
    static const size_t sizes[] = {[PX_COL_I32] = 4, [PX_COL_I64] = 8, [PX_COL_F32] = 4, [PX_COL_F64] = 8, [PX_COL_I8] = 1};
    size_t size = type == PX_COL_TEXT ? (size_t)width : sizes[type];
    PX_CHECK(b->count < SAMPLE_COLUMNS);
    void *values = px_alloc_array((size_t)b->rows + 1, size, "columns of the sample file");
    if (values == NULL) {
        b->status = px_error_code();
    }
    b->columns[b->count] = (px_column){name, units, meaning, type, width, false};
    b->values[b->count++] = values;
    return values;
}

static void free_builder(builder *b)
{
    for (int i = 0; i < b->count; i++) {
        px_free(b->values[i]);
    }
}

static px_table_data table(const char *name, const builder *b)
{
    return (px_table_data){name, b->columns, b->count, b->rows, (const void *const *)b->values};
}

/* Decoded texts of all samples, prompt or completion; NUL-terminated, cut at MAX_TEXT. */
static px_status decode_texts(const px_session *session, const px_rollout *r, bool completion, px_buf *text, size_t *places,
                              int *width)
{
    *width = 1;
    for (int i = 0; i < r->samples; i++) {
        places[i] = text->length;
        const int32_t *ids = r->ids + r->start[i];
        int p = r->prompt_length[i], n = r->length[i];
        if (session->tokenizer != NULL) {
            PX_TRY(px_tokenizer_decode_after(session->tokenizer, ids, completion ? p : 0, completion ? ids + p : ids,
                                             completion ? n : p, false, text));
        }
        PX_TRY(px_buf_add(text, "", 1));
        size_t length = text->length - places[i];
        *width = (int)length > *width ? (int)length : *width;
    }
    *width = *width < MAX_TEXT ? *width : MAX_TEXT;
    return PX_OK;
}

static void add_text(const px_session *session, builder *b, const px_rollout *r, bool completion)
{
    px_buf text = {0};
    int width = 1;
    size_t *places = px_alloc_array((size_t)r->samples + 1, sizeof *places, "text places");
    px_status status = places != NULL ? decode_texts(session, r, completion, &text, places, &width) : px_error_code();
    char *out = column(b, completion ? "completion" : "prompt", PX_COL_TEXT, width, "1",
                       completion ? "decoded completion, special tokens and all; rewards see it without them"
                                  : "decoded prompt, special tokens and all");
    for (int i = 0; status == PX_OK && b->status == PX_OK && i < r->samples; i++) {
        size_t length = strnlen(text.data + places[i], (size_t)width - 1);
        length = px_utf8_valid(text.data + places[i], length);
        memcpy(out + (size_t)i * (size_t)width, text.data + places[i], length);
    }
    b->status = b->status == PX_OK ? status : b->status;
    px_free(places);
    px_buf_free(&text);
}

typedef px_sample_rows offsets; /* what row numbers of an iteration start from */

static int64_t count_below(const px_frame *frame, const char *name, int64_t limit, const char *sum)
{
    int column_index = px_frame_column(frame, name), sum_index = sum != NULL ? px_frame_column(frame, sum) : -1;
    int64_t total = 0;
    for (int64_t row = 0; column_index >= 0 && row < frame->rows; row++) {
        if (px_frame_number(frame, column_index, row) < (double)limit) {
            total += sum_index >= 0 ? (int64_t)px_frame_number(frame, sum_index, row) : 1;
        }
    }
    return total;
}

static px_status find_offsets(const px_session *session, const char *path, int64_t file, int64_t iteration, int64_t base, offsets *at)
{
    *at = (offsets){0};
    if (!px_file_exists(path)) {
        return PX_OK;
    }
    if (session->samples_end.file == file && session->samples_end.iteration < iteration) { /* it ends where we left it */
        *at = session->samples_end;
        return PX_OK;
    }
    px_frame frame;
    PX_TRY(px_frame_read(path, "/samples", &frame));
    at->prompts = count_below(&frame, "iteration", iteration, "prompt_length");
    at->tokens = count_below(&frame, "iteration", iteration, "completion_length");
    px_frame_free(&frame);
    PX_TRY(px_frame_read(path, "/updates", &frame));
    at->updates = count_below(&frame, "iteration", iteration, NULL);
    px_frame_free(&frame);
    PX_TRY(px_frame_read(path, "/order", &frame));
    at->order = count_below(&frame, "sample", base, NULL);
    px_frame_free(&frame);
    return PX_OK;
}

static void fill_samples(const px_session *session, builder *b, const px_ppo_view *view, int64_t iteration, const offsets *at,
                         char names[][96])
{
    const px_rollout *r = view->rollout;
    b->rows = r->samples;
    int64_t *sample = column(b, "sample", PX_COL_I64, 0, "1", "unique in the run");
    int64_t *iterations = column(b, "iteration", PX_COL_I64, 0, "1", "iteration that sampled it");
    int64_t *prompt_id = column(b, "prompt_id", PX_COL_I64, 0, "1", "0-based record number of the prompt");
    int64_t *group = column(b, "group", PX_COL_I64, 0, "1", "samples of one prompt in one iteration share it");
    int64_t *weights = column(b, "weights_seq_no", PX_COL_I64, 0, "1", "version of the weights that sampled it");
    int32_t *index = column(b, "sample_index", PX_COL_I32, 0, "1", "number within the group");
    int32_t *rank = column(b, "rank", PX_COL_I32, 0, "1", "rank that sampled it");
    int64_t *prompt_start = column(b, "prompt_start", PX_COL_I64, 0, "token", "first row in /prompt_tokens");
    int64_t *completion_start = column(b, "completion_start", PX_COL_I64, 0, "token", "first row in /tokens");
    int32_t *prompt_length = column(b, "prompt_length", PX_COL_I32, 0, "token", "tokens of the prompt");
    int32_t *length = column(b, "completion_length", PX_COL_I32, 0, "token", "tokens of the completion, stop token included");
    int8_t *finish = column(b, "finish", PX_COL_I8, 0, "1", "why it ended");
    float *score = column(b, "score", PX_COL_F32, 0, "1", "weighted rewards after shaping and clipping");
    double *kl = column(b, "kl", PX_COL_F64, 0, "nat", "sum over tokens of old - ref");
    if (b->status != PX_OK) {
        return;
    }
    int64_t prompt_at = at->prompts;
    for (int i = 0; i < r->samples; i++) {
        sample[i] = (iteration - 1) * r->max_samples + i;
        iterations[i] = iteration;
        prompt_id[i] = r->prompt_id[i];
        group[i] = (iteration - 1) * r->max_samples + r->group[i];
        weights[i] = r->weights_seq_no[i];
        index[i] = r->sample_index[i];
        rank[i] = r->rank[i];
        prompt_start[i] = prompt_at;
        completion_start[i] = at->tokens + r->first[i];
        prompt_length[i] = r->prompt_length[i];
        length[i] = r->length[i];
        finish[i] = (int8_t)r->finish[i];
        score[i] = (float)r->score[i];
        kl[i] = r->kl[i];
        prompt_at += r->prompt_length[i];
    }
    for (int k = 0; k < px_rewards_count(view->rewards); k++) {
        snprintf(names[k], 96, "reward_%s", px_rewards_spec(view->rewards, k)->name);
        float *raw = column(b, names[k], PX_COL_F32, 0, "1", "score of this source, unweighted");
        for (int i = 0; b->status == PX_OK && i < r->samples; i++) {
            raw[i] = (float)r->raw[(size_t)k * (size_t)r->samples + (size_t)i];
        }
    }
    add_text(session, b, r, false);
    add_text(session, b, r, true);
}

static void fill_prompts(builder *b, const px_rollout *r, int64_t base, int64_t row)
{
    for (int i = 0; i < r->samples; i++) {
        b->rows += r->prompt_length[i];
    }
    int64_t *token = column(b, "token", PX_COL_I64, 0, "1", "row number");
    int64_t *sample = column(b, "sample", PX_COL_I64, 0, "1", "sample it belongs to");
    int32_t *id = column(b, "id", PX_COL_I32, 0, "1", "token id");
    int64_t n = 0;
    for (int i = 0; b->status == PX_OK && i < r->samples; i++) {
        for (int t = 0; t < r->prompt_length[i]; t++, n++) {
            token[n] = row + n;
            sample[n] = base + i;
            id[n] = r->ids[r->start[i] + t];
        }
    }
}

static void fill_tokens(builder *b, const px_rollout *r, int64_t base, int64_t row)
{
    b->rows = r->tokens;
    int64_t *token = column(b, "token", PX_COL_I64, 0, "1", "row number");
    int64_t *sample = column(b, "sample", PX_COL_I64, 0, "1", "sample it belongs to");
    int32_t *position = column(b, "position", PX_COL_I32, 0, "token", "place in the completion");
    int32_t *id = column(b, "id", PX_COL_I32, 0, "1", "token id");
    const struct {
        const char *name, *units, *meaning;
        const float *from;
    } numbers[] = {
        {"sampler_logprob", "nat", "log softmax(z/T) at sampling", r->sampler_logprob},
        {"old_logprob", "nat", "log softmax(z/T) under the policy before the update", r->old_logprob},
        {"ref_logprob", "nat", "log softmax(z/T) under the reference", r->ref_logprob},
        {"value", "1", "critic's value of the state before the token", r->value},
        {"reward", "1", "KL penalty, plus the score at the last token", r->reward},
        {"advantage", "1", "whitened generalised advantage estimate", r->advantage},
        {"returns", "1", "unwhitened advantage + value", r->returns},
    };
    for (int i = 0; b->status == PX_OK && i < r->samples; i++) {
        for (int64_t t = r->first[i]; t < r->first[i + 1]; t++) {
            token[t] = row + t;
            sample[t] = base + i;
            position[t] = (int32_t)(t - r->first[i]);
            id[t] = r->ids[r->start[i] + r->prompt_length[i] + position[t]];
        }
    }
    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
        float *out = column(b, numbers[k].name, PX_COL_F32, 0, numbers[k].units, numbers[k].meaning);
        if (b->status == PX_OK) {
            memcpy(out, numbers[k].from, (size_t)r->tokens * sizeof *out);
        }
    }
}

static void fill_updates(builder *b, const px_ppo_view *view, int64_t iteration, const offsets *at)
{
    b->rows = view->update_count;
    int64_t *update = column(b, "update", PX_COL_I64, 0, "1", "row number");
    int64_t *iterations = column(b, "iteration", PX_COL_I64, 0, "1", "iteration");
    int32_t *epoch = column(b, "epoch", PX_COL_I32, 0, "1", "pass over the samples");
    int32_t *minibatch = column(b, "minibatch", PX_COL_I32, 0, "1", "minibatch of the pass");
    int64_t *first = column(b, "first", PX_COL_I64, 0, "1", "first row in /order");
    int64_t *last = column(b, "last", PX_COL_I64, 0, "1", "last row in /order");
    double *policy = column(b, "loss/policy", PX_COL_F64, 0, "1", "policy loss before the step");
    double *value = column(b, "loss/value", PX_COL_F64, 0, "1", "value loss before the step");
    double *actor_norm = column(b, "grad_norm/actor", PX_COL_F64, 0, "1", "policy gradient norm before clipping");
    double *critic_norm = column(b, "grad_norm/critic", PX_COL_F64, 0, "1", "critic gradient norm before clipping");
    double *lr = column(b, "lr", PX_COL_F64, 0, "1", "policy learning rate");
    double *critic_lr = column(b, "critic_lr", PX_COL_F64, 0, "1", "critic learning rate");
    for (int i = 0; b->status == PX_OK && i < view->update_count; i++) {
        const px_update_row *u = &view->updates[i];
        update[i] = at->updates + i;
        iterations[i] = iteration;
        epoch[i] = u->epoch;
        minibatch[i] = u->minibatch;
        first[i] = at->order + u->first;
        last[i] = at->order + u->last;
        policy[i] = u->policy_loss;
        value[i] = u->value_loss;
        actor_norm[i] = u->policy_norm;
        critic_norm[i] = u->critic_norm;
        lr[i] = u->policy_lr;
        critic_lr[i] = u->critic_lr;
    }
}

static void fill_order(builder *b, const px_ppo_view *view, int64_t base, int64_t row)
{
    b->rows = view->order_count;
    int64_t *place = column(b, "place", PX_COL_I64, 0, "1", "row number");
    int64_t *sample = column(b, "sample", PX_COL_I64, 0, "1", "sample visited at this place");
    for (int64_t i = 0; b->status == PX_OK && i < view->order_count; i++) {
        place[i] = row + i;
        sample[i] = base + view->order[i];
    }
}

enum { SAMPLES, PROMPTS, TOKENS, UPDATES, ORDER, TABLES };
static const char *const names[TABLES] = {"/samples", "/prompt_tokens", "/tokens", "/updates", "/order"};

/* The file of an earlier start, which rows are about to be added to. One that is damaged stays beside a new one: the
 * run is worth more than some of its samples. */
static px_status check_old(px_session *session, const char *path, int64_t file, int64_t iteration)
{
    px_status status = PX_OK;
    if (session->samples_end.file == file || !px_file_exists(path)) {
        return PX_OK;
    }
    for (int t = 0; t < TABLES && status == PX_OK; t++) {
        bool optional = t == PROMPTS || t == TOKENS;
        px_frame frame = {0};
        int64_t rows;
        status = optional ? px_samples_rows(path, names[t], iteration, &rows) : px_frame_read(path, names[t], &frame);
        px_frame_free(&frame);
    }
    if (status == PX_DATA) {
        px_buf what = {0};
        status = px_set_aside(path, &what);
        if (status == PX_OK) {
            px_trainer_event(&session->trainer, iteration, "samples_damaged", "%s; a new file begins", what.data);
        }
        px_buf_free(&what);
    }
    return status;
}

static px_status path_of(char *out, size_t size, const px_session *session, int64_t file)
{
    char name[64];
    snprintf(name, sizeof name, "samples-%06lld.h5", (long long)file);
    return px_path_join(out, size, session->dir, name);
}

/* The file that begins last, by its first iteration; 0: there is none. */
static px_status last_file(const px_session *session, int64_t *file)
{
    DIR *stream = opendir(session->dir);
    *file = 0;
    if (stream == NULL) {
        return px_fail(PX_IO, "%s: cannot be read: %s", session->dir, strerror(errno));
    }
    for (const struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        long long number;
        int end = 0;
        if (sscanf(entry->d_name, "samples-%lld.h5%n", &number, &end) == 1 && end > 0 && entry->d_name[end] == '\0' &&
            number > *file) {
            *file = number;
        }
    }
    closedir(stream);
    return PX_OK;
}

/* Rows of iterations after session->start leave the file. */
static px_status cut(px_session *session, const char *path)
{
    px_frame frame;
    PX_TRY(px_frame_read(path, names[SAMPLES], &frame));
    int column_index = px_frame_column(&frame, "iteration");
    bool beyond = false;
    for (int64_t row = 0; column_index >= 0 && row < frame.rows; row++) {
        beyond = beyond || px_frame_number(&frame, column_index, row) > (double)session->start;
    }
    px_frame_free(&frame);
    px_table_data tables[TABLES];
    int count = 0;
    for (int t = 0; beyond && t < TABLES; t++) {
        int64_t rows;
        PX_TRY(px_samples_rows(path, names[t], session->start, &rows));
        if (rows > 0) {
            tables[count++] = (px_table_data){.name = names[t]};
        }
    }
    return count > 0 ? px_samples_append(path, tables, count, session->start, session->run->lock) : PX_OK;
}

px_status px_session_settle_samples(px_session *session)
{
    char path[PX_PATH_MAX];
    int64_t file;
    for (;;) {
        PX_TRY(last_file(session, &file));
        PX_TRY(path_of(path, sizeof path, session, file));
        if (file <= session->start) {
            break;
        }
        PX_TRY(check_old(session, path, file, file)); /* damaged, it is kept aside */
        if (unlink(path) != 0 && errno != ENOENT) {
            return px_fail(PX_IO, "%s: cannot remove: %s", path, strerror(errno));
        }
    }
    PX_TRY(file > 0 ? check_old(session, path, file, session->start) : PX_OK);
    return file > 0 && px_file_exists(path) ? cut(session, path) : PX_OK;
}

/* The file of an iteration: the one that was begun last, until it has its share of iterations. */
static px_status file_of(const px_session *session, int64_t iteration, int64_t *file)
{
    int64_t last = session->samples_end.file;
    if (last == 0) {
        PX_TRY(last_file(session, &last));
    }
    *file = last > 0 && iteration - last < px_stage_int(session->stage, "reporting.samples.iterations_per_file") ? last : iteration;
    return PX_OK;
}

static px_status write_samples(px_session *session, int64_t iteration)
{
    char path[PX_PATH_MAX], reward_names[PX_MAX_REWARDS][96];
    int64_t file;
    PX_TRY(file_of(session, iteration, &file));
    PX_TRY(path_of(path, sizeof path, session, file));
    px_ppo_view view;
    px_ppo_look(&session->trainer, &view);
    int64_t base = (iteration - 1) * view.rollout->max_samples;
    offsets at;
    PX_TRY(check_old(session, path, file, iteration));
    PX_TRY(find_offsets(session, path, file, iteration, base, &at));
    builder *b = px_alloc_array(TABLES, sizeof *b, "the sample file");
    if (b == NULL) {
        return px_error_code();
    }
    fill_samples(session, &b[SAMPLES], &view, iteration, &at, reward_names);
    fill_prompts(&b[PROMPTS], view.rollout, base, at.prompts);
    fill_tokens(&b[TOKENS], view.rollout, base, at.tokens);
    fill_updates(&b[UPDATES], &view, iteration, &at);
    fill_order(&b[ORDER], &view, base, at.order);
    px_table_data tables[TABLES];
    px_status status = PX_OK;
    int count = 0;
    bool with_tokens = px_stage_bool(session->stage, "reporting.samples.tokens");
    for (int t = 0; t < TABLES; t++) {
        status = status == PX_OK ? b[t].status : status;
        int64_t rows = 1; /* without tokens a file keeps those that an earlier start has put there */
        if (!with_tokens && (t == PROMPTS || t == TOKENS)) {
            b[t].rows = 0;
            status = status == PX_OK ? px_samples_rows(path, names[t], iteration - 1, &rows) : status;
        }
        if (rows > 0) {
            tables[count++] = table(names[t], &b[t]);
        }
    }
    if (status == PX_OK) {
        status = px_samples_append(path, tables, count, iteration - 1, session->run->lock);
    }
    session->samples_end = (offsets){.file = status == PX_OK ? file : 0, .iteration = iteration,
                                     .prompts = at.prompts + b[PROMPTS].rows, .tokens = at.tokens + b[TOKENS].rows,
                                     .updates = at.updates + b[UPDATES].rows, .order = at.order + b[ORDER].rows};
    for (int t = 0; t < TABLES; t++) {
        free_builder(&b[t]);
    }
    px_free(b);
    return status;
}

size_t px_session_samples_bytes(const px_session *session)
{
    enum { TEXT_BYTES = 6, TOKEN_BYTES = 48, ROW_BYTES = 8 * SAMPLE_COLUMNS, BLOCKS = 16 << 20 }; /* TEXT: of a token's text */
    const px_stage *stage = session->stage;
    if (px_stage_int(stage, "reporting.samples.every") < 1) {
        return 0;
    }
    size_t samples = (size_t)(session->ppo.prompts_per_iteration * session->ppo.samples_per_prompt), texts = 0, all = 0;
    static const char *const lengths[] = {"environment.max_prompt_tokens", "environment.max_completion_tokens"};
    for (int i = 0; i < 2; i++) {
        size_t length = (size_t)px_stage_int(stage, lengths[i]);
        texts += TEXT_BYTES * length < MAX_TEXT ? TEXT_BYTES * length : MAX_TEXT;
        all += px_stage_bool(stage, "reporting.samples.tokens") ? TOKEN_BYTES * length : 0;
    }
    size_t once = samples * (all + 2 * texts + ROW_BYTES);
    size_t file = once * (size_t)px_stage_int(stage, "reporting.samples.iterations_per_file");
    return once + (file < BLOCKS ? file : BLOCKS);
}

bool px_session_samples_due(const px_session *session, int64_t iteration)
{
    int64_t every = px_stage_int(session->stage, "reporting.samples.every");
    return session->algorithm == &px_algorithm_ppo && every > 0 && iteration % every == 0;
}

px_status px_session_write_samples(px_session *session)
{
    double start = px_now();
    px_phase_set("write samples", session->unwritten);
    PX_TRY(write_samples(session, session->unwritten));
    session->writing += px_now() - start;
    return PX_OK;
}

/* Five held-out prompts with their completions, before training and now. */
static px_status write_examples(px_session *session, bool before)
{
    enum { EXAMPLES = 5 };
    char path[PX_PATH_MAX];
    px_ppo_view view;
    px_ppo_look(&session->trainer, &view);
    const px_rollout *r = view.evaluation;
    PX_TRY(px_path_join(path, sizeof path, session->dir, "examples.json"));
    json_t *list = before ? json_array() : NULL;
    if (!before && px_file_exists(path) && px_json_read(path, &list) != PX_OK) {
        px_log(PX_WARNING, "no examples of completions before and after: %s", px_error_text());
        px_error_clear();
    }
    if (!json_is_array(list)) { /* a branch has no beginning; and no keepsake is worth a run */
        json_decref(list);
        return PX_OK;
    }
    px_status status = PX_OK;
    for (int i = 0; status == PX_OK && i < r->samples && i < EXAMPLES; i++) {
        px_buf prompt = {0}, completion = {0};
        const int32_t *ids = r->ids + r->start[i];
        int p = r->prompt_length[i];
        status = px_tokenizer_decode(session->tokenizer, ids, p, true, &prompt);
        if (status == PX_OK) {
            status = px_tokenizer_decode_after(session->tokenizer, ids, p, ids + p, r->length[i], true, &completion);
        }
        if (status == PX_OK && before) {
            json_array_append_new(list, json_pack("{s:s, s:s}", "prompt", prompt.data != NULL ? prompt.data : "", "before",
                                                  completion.data != NULL ? completion.data : ""));
        } else if (status == PX_OK && (size_t)i < json_array_size(list)) {
            json_object_set_new(json_array_get(list, (size_t)i), "after",
                                json_string(completion.data != NULL ? completion.data : ""));
        }
        px_buf_free(&prompt);
        px_buf_free(&completion);
    }
    char *text = status == PX_OK ? json_dumps(list, JSON_INDENT(1)) : NULL;
    if (text != NULL) {
        status = px_file_write(path, text, strlen(text));
        free(text);
    }
    json_decref(list);
    return status;
}

px_status px_session_write_examples(px_session *session, bool before)
{
    bool due = session->algorithm == &px_algorithm_ppo && session->tokenizer != NULL && session->validation != NULL;
    return due ? px_agree(px_dist_rank() == 0 ? write_examples(session, before) : PX_OK) : PX_OK;
}
