/* The data sets of a stage, tokenised for its model. Every rank reads them: order and batches need all rows. */
#include "run.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* "1-1:3 2-3:40": rows by length. */
static void write_histogram(char *text, size_t size, const px_data_summary *s)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < PX_DATA_BINS && used < size; i++) {
        long long least = 1LL << i, most = i + 1 < PX_DATA_BINS ? 2 * least - 1 : s->max_length;
        if (s->histogram[i] > 0) {
            used += (size_t)snprintf(text + used, size - used, " %lld-%lld:%lld", least, most, (long long)s->histogram[i]);
        }
    }
}

static void describe(const char *what, const char *path, const px_data_summary *s)
{
    char histogram[1024];
    write_histogram(histogram, sizeof histogram, s);
    px_log(PX_INFO, "%-12s %s: %lld rows (%s), %lld tokens, length %d to %d, mean %.1f; %lld cut, %lld dropped "
                    "(%lld too long, %lld with equal sides, %lld with nothing to learn), %lld duplicate prompts",
           what, path, (long long)s->rows, s->shape, (long long)s->tokens, s->min_length, s->max_length, s->mean_length,
           (long long)s->cut, (long long)s->dropped, (long long)s->dropped_long, (long long)s->dropped_equal,
           (long long)s->dropped_empty, (long long)s->duplicate_prompts);
    px_log(PX_INFO, "%-12s rows by length:%s", what, histogram);
}

/* For the run file; shape and histogram stay the data set's. */
static px_status keep_entry(px_session *session, const char *set, const px_source *source, const px_data_summary *s)
{
    size_t bytes = (size_t)(session->data_count + 1) * sizeof *session->data;
    px_data_entry *grown = px_realloc(session->data, bytes, "the list of data files");
    if (grown == NULL) {
        return px_error_code();
    }
    session->data = grown;
    char *file = px_strdup(source->path);
    if (file == NULL) {
        return px_error_code();
    }
    _Static_assert(sizeof s->histogram == PX_DATA_BINS * sizeof(int64_t), "bins of a histogram");
    grown[session->data_count++] = (px_data_entry){
        .set = set, .file = file, .shape = s->shape, .weight = source->weight, .mean_length = s->mean_length,
        .records = s->records, .rows = s->rows, .cut = s->cut, .dropped_long = s->dropped_long,
        .dropped_equal = s->dropped_equal, .dropped_empty = s->dropped_empty,
        .duplicate_prompts = s->duplicate_prompts, .tokens = s->tokens, .min_length = s->min_length,
        .max_length = s->max_length, .histogram = s->histogram};
    return PX_OK;
}

/* Bytes of the files as they lie on the disk; a file that is not there is the reader's to report. */
static int64_t size_of(const px_source *sources, int count)
{
    int64_t size = 0;
    for (int i = 0; i < count; i++) {
        struct stat info;
        size += stat(sources[i].path, &info) == 0 ? (int64_t)info.st_size : 0;
    }
    return size;
}

/* A file that is not there is the key's fault, whatever is wrong in one is its own. */
static px_status check_source(const px_session *session, const char *key, const px_source *source)
{
    int fd;
    if (px_dir_exists(source->path)) { /* the reader says what is valid */
        return PX_OK;
    }
    if (px_file_open(source->path, &fd) != PX_OK) {
        return px_stage_fail_within(session->stage, key);
    }
    close(fd);
    return PX_OK;
}

static px_status load_files(px_session *session, const char *key, const px_source *sources, int count,
                            px_data_options *options, px_dataset **data, const char *what)
{
    char cache[PX_PATH_MAX];
    for (int i = 0; i < count; i++) {
        PX_TRY(check_source(session, key, &sources[i]));
    }
    PX_TRY(px_path_join(cache, sizeof cache, session->run->dir, "cache"));
    bool large = size_of(sources, count) > px_stage_int(session->stage, "data.memory_mib") << 20;
    options->cache = large ? cache : NULL;
    px_status status = px_dataset_load_files(data, sources, count, options);
    options->cache = NULL;
    PX_TRY(status);
    for (int i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, sources[i].weight == 1.0 ? "%s" : "%s x %g", what, sources[i].weight);
        describe(name, sources[i].path, px_dataset_file_summary(*data, i));
        PX_TRY(keep_entry(session, what, &sources[i], px_dataset_file_summary(*data, i)));
    }
    return PX_OK;
}

/* What a resumed run must find again. */
static void add_hash(px_session *session, const px_dataset *data)
{
    if (data != NULL) {
        session->data_hash = px_hash(&(uint64_t){px_dataset_hash(data)}, sizeof(uint64_t), session->data_hash);
    }
}

static px_status load_one(px_session *session, const char *key, px_data_options *options, px_dataset **data, const char *what)
{
    char path[PX_PATH_MAX];
    PX_TRY(px_stage_path(session->stage, key, path, sizeof path));
    return load_files(session, key, &(px_source){path, 1.0}, 1, options, data, what);
}

static px_status load_list(px_session *session, const char *key, px_data_options *options, px_dataset **data, const char *what)
{
    const px_stage *stage = session->stage;
    int count = px_stage_list_count(stage, key);
    px_source *sources = px_alloc_array((size_t)count, sizeof *sources, "files of a data set");
    for (int i = 0; sources != NULL && i < count; i++) {
        char entry[160];
        snprintf(entry, sizeof entry, "%s.%d.file", key, i);
        sources[i].path = px_stage_text(stage, entry);
        snprintf(entry, sizeof entry, "%s.%d.weight", key, i);
        sources[i].weight = px_stage_float(stage, entry);
    }
    px_status status = sources != NULL ? load_files(session, key, sources, count, options, data, what) : px_error_code();
    px_free(sources);
    return status;
}

static px_status choose_renderer(px_session *session, px_data_options *options)
{
    if (strcmp(px_stage_algorithm(session->stage), "pretrain") == 0 || session->tokenizer == NULL) {
        return PX_OK;
    }
    const char *name = px_stage_text(session->stage, "environment.chat.template");
    options->system = px_stage_text(session->stage, "environment.chat.system");
    if (strcmp(name, "none") == 0) {
        return PX_OK;
    }
    px_status status = px_renderer_find(&session->renderer, name, session->tokenizer);
    options->renderer = session->renderer;
    return status == PX_OK ? status : px_stage_fail_within(session->stage, "environment.chat.template");
}

static px_status load_training(px_session *session, px_data_options *options, bool reward)
{
    const px_stage *stage = session->stage;
    PX_TRY(load_list(session, "data.train", options, &session->train, "train"));
    if (px_stage_is_set(stage, "data.validation")) {
        PX_TRY(load_one(session, "data.validation", options, &session->validation, "validation"));
    }
    if (reward && px_stage_is_set(stage, "data.demonstrations")) {
        options->kind = PX_ROWS_LM;
        options->scored = true;
        PX_TRY(load_one(session, "data.demonstrations", options, &session->demonstrations, "demonstrations"));
    }
    add_hash(session, session->train);
    add_hash(session, session->validation);
    add_hash(session, session->demonstrations);
    return PX_OK;
}

/* Longest prompt that leaves the completion its room. A limit that the user gave is not lowered in silence. */
static px_status prompt_limit(const px_stage *stage, const px_model_config *model, int *limit)
{
    const char *key = "environment.max_prompt_tokens";
    int completion = (int)px_stage_int(stage, "environment.max_completion_tokens"), room = model->max_positions - completion;
    *limit = (int)px_stage_int(stage, key);
    if (room < 1) {
        return px_stage_fail(stage, "environment.max_completion_tokens", "environment.max_completion_tokens is %d; the policy has "
                             "%d positions for prompt and completion", completion, model->max_positions);
    }
    if (*limit > room && strcmp(px_stage_origin(stage, key), "default") != 0) {
        return px_stage_fail(stage, key, "%s + max_completion_tokens is %d; the policy has %d positions", key,
                             *limit + completion, model->max_positions);
    }
    *limit = *limit < room ? *limit : room;
    return PX_OK;
}

px_status px_text_options(px_data_options *options, px_tokenizer *tokenizer, const char *dir, const px_model_config *model)
{
    *options = (px_data_options){.tokenizer = tokenizer, .vocab_size = model->vocab_size, .eos_id = -1};
    if (tokenizer != NULL) {
        if (px_tokenizer_size(tokenizer) > model->vocab_size) {
            return px_fail(PX_DATA, "%s: the tokenizer has %d ids, the model's vocabulary %d; valid is a tokenizer that fits", dir,
                           px_tokenizer_size(tokenizer), model->vocab_size);
        }
        options->eos_id = px_tokenizer_eos(tokenizer);
        options->add_bos = px_tokenizer_adds_bos(tokenizer);
    }
    if (options->eos_id < 0 && model->eos_count > 0) {
        options->eos_id = model->eos_ids[0];
    }
    return PX_OK;
}

static px_status check_texts(const px_session *session, const char *list, const px_rewards *rewards)
{
    for (int k = 0; session->tokenizer == NULL && k < px_rewards_count(rewards); k++) {
        const px_reward_spec *spec = px_rewards_spec(rewards, k);
        char key[160];
        snprintf(key, sizeof key, "%s.%d.kind", list, k);
        if (px_reward_reads_text(spec)) {
            return px_stage_fail(session->stage, key, "%s: reward '%s' reads text, and there is no tokenizer to make text of "
                                 "token ids; valid is one in rl_module.tokenizer", key, spec->name);
        }
        if (spec->kind == PX_REWARD_EXEC && px_dist_rank() == 0) {
            px_log(PX_NOTE, "reward '%s': without a tokenizer its program gets empty texts, and the records", spec->name);
        }
    }
    return PX_OK;
}

static bool reads_records(const px_rewards *rewards)
{
    bool reads = false;
    for (int k = 0; k < px_rewards_count(rewards); k++) {
        reads = reads || px_rewards_spec(rewards, k)->kind == PX_REWARD_EXACT;
    }
    return reads;
}

/* A row that a reward cannot use is known before the first of them is sampled for. */
static px_status check_records(const px_session *session, const char *key, const px_dataset *prompts, const px_rewards *rewards)
{
    int64_t rows = reads_records(rewards) ? px_dataset_count(prompts) : 0; /* else none is fetched from its file */
    for (int64_t i = 0; i < rows; i++) {
        px_row row;
        px_dataset_row(prompts, i, &row);
        if (px_rewards_check(rewards, row.json) == PX_OK) {
            continue;
        }
        char path[PX_PATH_MAX];
        PX_TRY(px_stage_path(session->stage, key, path, sizeof path));
        return px_fail_within("%s:%lld", path, (long long)px_record_line(path, row.record));
    }
    return PX_OK;
}

static px_status check_rewards(const px_session *session)
{
    const px_stage_rewards *rewards = session->rewards;
    const char *list = rewards->evaluation != rewards->train ? "evaluation.rewards" : "environment.rewards";
    PX_TRY(check_texts(session, "environment.rewards", rewards->train));
    PX_TRY(check_records(session, "environment.prompts", session->train, rewards->train));
    if (session->validation == NULL) {
        return PX_OK;
    }
    PX_TRY(check_texts(session, list, rewards->evaluation));
    return check_records(session, "evaluation.prompts", session->validation, rewards->evaluation);
}

px_status px_session_data(px_session *session, const px_model_config *model)
{
    const px_stage *stage = session->stage;
    const char *algorithm = px_stage_algorithm(stage);
    px_data_options options;
    PX_TRY(px_text_options(&options, session->tokenizer, session->tokenizer_dir, model));
    PX_TRY(choose_renderer(session, &options));
    if (strcmp(algorithm, "ppo") == 0) {
        options.kind = PX_ROWS_PROMPTS;
        PX_TRY(prompt_limit(stage, model, &options.max_tokens));
        PX_TRY(load_one(session, "environment.prompts", &options, &session->train, "prompts"));
        if (px_stage_is_set(stage, "evaluation.prompts")) {
            PX_TRY(load_one(session, "evaluation.prompts", &options, &session->validation, "held-out"));
        }
        add_hash(session, session->train); /* evaluation may change */
        return check_rewards(session);
    }
    bool reward = strcmp(algorithm, "reward") == 0;
    options.kind = reward ? PX_ROWS_PAIRS : PX_ROWS_LM;
    options.max_tokens = (int)px_stage_int(stage, "data.max_tokens");
    if (options.max_tokens > model->max_positions) {
        options.max_tokens = model->max_positions;
    }
    if (strcmp(algorithm, "pretrain") == 0) {
        options.max_tokens = 0; /* long texts become pieces */
    }
    return load_training(session, &options, reward);
}
