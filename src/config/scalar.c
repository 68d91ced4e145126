/* One scalar that was written becomes a typed value, or a problem. */
#include "resolve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool px_looks_like_number(const char *text, bool *whole)
{
    const char *at = text + (*text == '-' || *text == '+');
    size_t before = strspn(at, "0123456789"), after = 0;
    at += before;
    *whole = true;
    if (*at == '.') {
        *whole = false;
        after = strspn(++at, "0123456789");
        at += after;
    }
    if (before + after == 0) return false;
    if (*at == 'e' || *at == 'E') {
        *whole = false;
        at++;
        at += *at == '-' || *at == '+';
        size_t digits = strspn(at, "0123456789");
        if (!digits) return false;
        at += digits;
    }
    return *at == 0;
}

static const char *interval_text(px_pool *pool, const px_key *row)
{
    double low, high;
    bool low_open, high_open;
    px_valid_interval(row->valid, &low, &high, &low_open, &high_open);
    return px_pool_format(pool, "%s %s%.16g %s%.16g", row->kind == PX_KEY_INT ? "a whole number" : "a number",
                          low_open ? "above " : "from ", low, high_open ? "to below " : "to ", high);
}

/* A value that is no word of the list. */
static const char *kind_text(px_pool *pool, const px_key *row)
{
    switch (row->kind) {
    case PX_KEY_INT:
    case PX_KEY_FLOAT: return interval_text(pool, row);
    case PX_KEY_BOOL: return "true or false";
    case PX_KEY_WORD: return "";
    case PX_KEY_TEXT: return "text";
    case PX_KEY_PATH: return "a path";
    case PX_KEY_NUMBERS: return px_pool_format(pool, "a list of 2, each %s", interval_text(pool, row));
    case PX_KEY_TEXTS: return "text or a list of texts";
    case PX_KEY_MODULE: return "one of {path: DIR}, {stage: NAME}, {same_as: MODULE}, {new: {...}}";
    case PX_KEY_REWARDS: return "a list of maps {kind: ..., weight: ...}";
    case PX_KEY_SOURCES: return "a file, or a list of files and maps {file, weight}";
    case PX_KEY_METRICS: return "a map {METRIC: \"> NUMBER\"}";
    }
    return "";
}

const char *px_valid_text(px_pool *pool, const px_key *row)
{
    const char *list = "", *kind = kind_text(pool, row);
    char word[64];
    int n = 0;
    for (const char *at = row->valid; px_word_next(&at, word, sizeof word);) {
        if (word[0] == '[' || word[0] == '(') continue;
        list = px_pool_format(pool, "%s%s%s", list, n++ ? ", " : "", word);
    }
    return px_pool_format(pool, "%s%s%s", list, n && *kind ? ", or " : "", kind);
}

void px_bad_value(px_job *job, const px_value *value, const px_node *node, const char *wrong)
{
    px_key_kind kind = value->row->kind;
    const char *valid = px_valid_text(job->pool, value->row);
    if (node->kind == PX_SCALAR) {
        px_problem_node(job->problems, node, "%s: '%.80s' %s; valid is %s", value->key, node->text, wrong, valid);
        return;
    }
    const char *wanted = kind == PX_KEY_TEXTS ? "text or a list of texts is" : kind == PX_KEY_NUMBERS ? "a list is" : "one value is";
    px_problem_node(job->problems, node, "%s: a %s where %s wanted; valid is %s", value->key, node->kind == PX_LIST ? "list" : "map",
                    wanted, valid);
}

static const char in_quotes[] = "is text, as it stands in quotes";

static void parse_number(px_job *job, px_value *value, const px_node *node)
{
    bool whole = false;
    if (!node->plain || !px_looks_like_number(node->text, &whole)) {
        px_bad_value(job, value, node, node->plain ? "is not a number" : in_quotes);
        return;
    }
    double number = strtod(node->text, NULL), low, high;
    bool low_open, high_open, is_int = value->row->kind == PX_KEY_INT;
    px_valid_interval(value->row->valid, &low, &high, &low_open, &high_open);
    if (!isfinite(number)) {
        px_bad_value(job, value, node, "is too large");
    } else if (is_int && number != floor(number)) {
        px_bad_value(job, value, node, "is not a whole number");
    } else if (number < low || number > high || (low_open && number <= low) || (high_open && number >= high)) {
        px_bad_value(job, value, node, "is out of range");
    } else {
        value->form = PX_IS_NUMBER;
        value->f = number;
        value->i = !is_int ? 0 : whole ? strtoll(node->text, NULL, 10) : (int64_t)number;
    }
}

/* A path in the file that names it is relative to that file. */
static const char *absolute(px_job *job, const px_node *node)
{
    char path[PX_PATH_MAX];
    const char *dir = node->dir ? node->dir : job->stage->config->dir;
    if (px_path_join(path, sizeof path, dir, node->text) != PX_OK) {
        px_error_clear();
        px_problem_node(job->problems, node, "the path is longer than %d bytes; valid is a shorter one", PX_PATH_MAX);
        return "";
    }
    /* "a/./b" and "a/x/../b" become "a/b": the same place must give the same text */
    char *out = px_pool_take(job->pool, strlen(path) + 2);
    size_t length = 0;
    for (const char *at = path; *at;) {
        at += strspn(at, "/");
        size_t part = strcspn(at, "/");
        if (part == 2 && at[0] == '.' && at[1] == '.') {
            while (length && out[--length] != '/') continue;
        } else if (part && !(part == 1 && at[0] == '.')) {
            out[length++] = '/';
            memcpy(out + length, at, part);
            length += part;
        }
        at += part;
    }
    out[length ? length : 1] = 0;
    out[0] = '/';
    return out;
}

void px_parse_scalar(px_job *job, px_value *value, const px_node *node)
{
    const px_key *row = value->row;
    if (px_node_is_null(node)) return;
    if (node->kind != PX_SCALAR) {
        px_bad_value(job, value, node, "");
        return;
    }
    /* a word is one in quotes too, as JSON has it; null in quotes is text */
    bool word = px_valid_word(row->valid, node->text) && strcmp(node->text, "null") != 0;
    if (word && row->kind != PX_KEY_TEXT && row->kind != PX_KEY_PATH) {
        value->form = PX_IS_WORD;
        value->text = node->text;
        return;
    }
    switch (row->kind) {
    case PX_KEY_INT:
    case PX_KEY_FLOAT:
    case PX_KEY_NUMBERS: parse_number(job, value, node); break;
    case PX_KEY_BOOL: {
        bool yes = !strcmp(node->text, "true") || !strcmp(node->text, "True") || !strcmp(node->text, "TRUE");
        bool no = !strcmp(node->text, "false") || !strcmp(node->text, "False") || !strcmp(node->text, "FALSE");
        if (!node->plain || !(yes || no)) px_bad_value(job, value, node, node->plain ? "is not a truth value" : in_quotes);
        else value->form = PX_IS_BOOL, value->i = yes;
        break;
    }
    case PX_KEY_PATH:
        if (!*node->text) px_bad_value(job, value, node, "is empty");
        else value->form = PX_IS_TEXT, value->text = absolute(job, node);
        break;
    case PX_KEY_WORD: {
        const char *names[32];
        char word_text[64];
        int n = 0;
        for (const char *at = row->valid; n < 32 && px_word_next(&at, word_text, sizeof word_text);) {
            names[n++] = px_pool_text(job->pool, word_text);
        }
        const char *near = px_nearest_name(node->text, names, n);
        px_bad_value(job, value, node, near ? px_pool_format(job->pool, "is not known, did you mean '%s'?", near) : "is not known");
        break;
    }
    default: value->form = PX_IS_TEXT, value->text = node->text; break;
    }
}
