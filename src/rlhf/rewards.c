#include "phalanx/rewards.h"
#include "rewards_sources.h"

#include <math.h>
#include <string.h>

typedef struct source {
    px_reward_spec spec;
    px_lexicon *lexicon;
    px_regex *pattern;
    px_exec *exec;
} source;

struct px_rewards {
    source *sources;
    int count;
};

static px_status missing(const char *key, const char *why)
{
    return px_fail(PX_CONFIG, "%s is missing; %s", key, why);
}

static px_status open_source(source *s)
{
    const px_reward_spec *spec = &s->spec;
    if (!isfinite(spec->weight)) {
        return px_fail(PX_CONFIG, "weight is %g; valid is a finite number", spec->weight);
    }
    switch (spec->kind) {
    case PX_REWARD_MODEL:
        return PX_OK;
    case PX_REWARD_LEXICON:
        if (spec->file == NULL) {
            return missing("file", "a lexicon reads a file of word<TAB>value lines");
        }
        return px_lexicon_open(&s->lexicon, spec->file);
    case PX_REWARD_LENGTH:
        if (!(spec->target > 0.0) || !isfinite(spec->target)) {
            return px_fail(PX_CONFIG, "target is %g; valid is a number of tokens above 0", spec->target);
        }
        return PX_OK;
    case PX_REWARD_REGEX:
        if (spec->pattern == NULL) {
            return missing("pattern", "regex looks for it in the completion");
        }
        return px_regex_open(&s->pattern, spec->pattern);
    case PX_REWARD_EXACT:
        if (spec->field == NULL || spec->field[0] == '\0') {
            return missing("field", "exact compares with this field of the prompt's record, e.g. answer");
        }
        return spec->pattern != NULL ? px_regex_open(&s->pattern, spec->pattern) : PX_OK;
    case PX_REWARD_EXEC:
        return px_exec_open(&s->exec, spec);
    }
    return px_fail(PX_CONFIG, "unknown kind %d; valid are model, lexicon, length, regex, exact, exec", (int)spec->kind);
}

static px_status check_names(const px_reward_spec *specs, int count)
{
    for (int i = 0; i < count; i++) {
        if (specs[i].name == NULL || specs[i].name[0] == '\0') {
            return px_fail(PX_CONFIG, "reward %d has no name", i);
        }
        for (int j = 0; j < i; j++) {
            if (strcmp(specs[i].name, specs[j].name) == 0) {
                return px_fail(PX_CONFIG, "two rewards are called '%s'; names must differ", specs[i].name);
            }
        }
    }
    return PX_OK;
}

px_status px_rewards_open(px_rewards **rewards, const px_reward_spec *specs, int count)
{
    *rewards = NULL;
    PX_TRY(check_names(specs, count));
    px_rewards *r = px_alloc(sizeof *r, "rewards");
    if (r == NULL) {
        return px_error_code();
    }
    r->sources = px_alloc_array((size_t)(count > 0 ? count : 1), sizeof *r->sources, "reward sources");
    if (r->sources == NULL) {
        px_free(r);
        return px_error_code();
    }
    for (int i = 0; i < count; i++) {
        r->sources[i].spec = specs[i];
        r->count = i + 1;
        if (open_source(&r->sources[i]) != PX_OK) {
            px_status status = px_fail_within("reward '%s'", specs[i].name);
            px_rewards_close(r);
            return status;
        }
    }
    *rewards = r;
    return PX_OK;
}

void px_rewards_close(px_rewards *rewards)
{
    if (rewards == NULL) {
        return;
    }
    for (int i = 0; i < rewards->count; i++) {
        px_lexicon_close(rewards->sources[i].lexicon);
        px_regex_close(rewards->sources[i].pattern);
        px_exec_close(rewards->sources[i].exec);
    }
    px_free(rewards->sources);
    px_free(rewards);
}

static px_status score_one(source *s, const px_reward_sample *sample, double *score)
{
    px_match found;
    size_t begin, length;
    switch (s->spec.kind) {
    case PX_REWARD_LEXICON:
        return px_lexicon_score(s->lexicon, sample->completion, score);
    case PX_REWARD_LENGTH:
        *score = -fabs(sample->completion_tokens - s->spec.target) / s->spec.target;
        return PX_OK;
    case PX_REWARD_REGEX:
        found = px_regex_find(s->pattern, sample->completion, false, &begin, &length);
        *score = found == PX_MATCH_UNDECIDED ? NAN : found == PX_MATCH_FOUND ? 1.0 : 0.0;
        return PX_OK;
    case PX_REWARD_EXACT:
        return px_exact_score(&s->spec, s->pattern, sample, score);
    case PX_REWARD_MODEL:
    case PX_REWARD_EXEC:
        break;
    }
    return PX_OK;
}

px_status px_rewards_check(const px_rewards *rewards, const char *record)
{
    for (int i = 0; i < rewards->count; i++) {
        const px_reward_spec *spec = &rewards->sources[i].spec;
        if (spec->kind == PX_REWARD_EXACT && px_exact_check(spec, record) != PX_OK) {
            return px_fail_within("reward '%s'", spec->name);
        }
    }
    return PX_OK;
}

bool px_reward_reads_text(const px_reward_spec *spec)
{
    return spec->kind == PX_REWARD_LEXICON || spec->kind == PX_REWARD_REGEX || spec->kind == PX_REWARD_EXACT;
}

px_status px_reward_usable(const px_reward_spec *spec, int number, double *score, px_buf *events)
{
    if (fabs(*score) <= PX_SCORE_MOST) {
        return PX_OK;
    }
    *score = NAN;
    if (events != NULL && (spec->kind == PX_REWARD_REGEX || spec->kind == PX_REWARD_EXACT)) {
        return px_buf_printf(events, "reward '%s': sample %d: the pattern takes too many steps on this completion\n", spec->name,
                             number);
    }
    return events == NULL ? PX_OK
                          : px_buf_printf(events, "reward '%s': sample %d: the score is no finite number up to %g in size\n",
                                          spec->name, number, PX_SCORE_MOST);
}

px_status px_rewards_score(px_rewards *rewards, const px_reward_sample *samples, int count, double *raw, px_buf *events)
{
    for (int i = 0; i < rewards->count; i++) {
        source *s = &rewards->sources[i];
        double *row = raw + (size_t)i * (size_t)count;
        px_status status = PX_OK;
        if (s->spec.kind == PX_REWARD_EXEC) {
            status = px_exec_score(s->exec, samples, count, row, events);
        } else if (s->spec.kind != PX_REWARD_MODEL) {
            for (int k = 0; k < count && status == PX_OK; k++) {
                status = score_one(s, &samples[k], &row[k]);
                if (status == PX_OK) {
                    status = px_reward_usable(&s->spec, samples[k].number, &row[k], events);
                }
            }
        }
        if (status != PX_OK) {
            return px_fail_within("reward '%s'", s->spec.name);
        }
    }
    return PX_OK;
}

int px_rewards_count(const px_rewards *rewards)
{
    return rewards->count;
}

const px_reward_spec *px_rewards_spec(const px_rewards *rewards, int index)
{
    return &rewards->sources[index].spec;
}
