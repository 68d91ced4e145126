#include "shapes.h"

#include <stdio.h>
#include <string.h>

enum { LM = 1 << PX_ROWS_LM, PAIRS = 1 << PX_ROWS_PAIRS, PROMPTS = 1 << PX_ROWS_PROMPTS };

/* In order of preference: the first that fits and that the kind can use. */
static const px_shape shapes[] = {
    {"prompt_ids+chosen_ids+rejected_ids", PAIRS, PX_FORM_IDS, PX_STYLE_PLAIN, "prompt_ids", "chosen_ids",
     "rejected_ids"},
    {"prompt_ids+completion_ids", LM, PX_FORM_IDS, PX_STYLE_PLAIN, "prompt_ids", "completion_ids", NULL},
    {"prompt_ids", PROMPTS, PX_FORM_IDS, PX_STYLE_PLAIN, "prompt_ids", NULL, NULL},
    {"ids", LM, PX_FORM_IDS, PX_STYLE_PLAIN, NULL, "ids", NULL},
    {"ids", PROMPTS, PX_FORM_IDS, PX_STYLE_PLAIN, "ids", NULL, NULL},

    {"prompt+chosen+rejected", PAIRS, PX_FORM_TEXT, PX_STYLE_PLAIN, "prompt", "chosen", "rejected"},
    {"prompt+chosen+rejected (messages)", PAIRS, PX_FORM_MESSAGES, PX_STYLE_PLAIN, "prompt", "chosen", "rejected"},
    {"messages+chosen+rejected", PAIRS, PX_FORM_MESSAGES, PX_STYLE_PLAIN, "messages", "chosen", "rejected"},
    {"conversations+chosen+rejected", PAIRS, PX_FORM_MESSAGES, PX_STYLE_PLAIN, "conversations", "chosen", "rejected"},
    {"instruction+chosen+rejected", PAIRS, PX_FORM_TEXT, PX_STYLE_ALPACA, "instruction", "chosen", "rejected"},
    {"question+chosen+rejected", PAIRS, PX_FORM_TEXT, PX_STYLE_QUESTION, "question", "chosen", "rejected"},
    {"question+response_j+response_k", PAIRS, PX_FORM_TEXT, PX_STYLE_QUESTION, "question", "response_j", "response_k"},

    {"prompt+completion", LM, PX_FORM_TEXT, PX_STYLE_PLAIN, "prompt", "completion", NULL},
    {"prompt+completion (messages)", LM, PX_FORM_MESSAGES, PX_STYLE_PLAIN, "prompt", "completion", NULL},
    {"instruction+output", LM, PX_FORM_TEXT, PX_STYLE_ALPACA, "instruction", "output", NULL},
    {"question+answer", LM, PX_FORM_TEXT, PX_STYLE_QUESTION, "question", "answer", NULL},
    {"context+continuation", LM, PX_FORM_TEXT, PX_STYLE_PLAIN, "context", "continuation", NULL},
    {"prompt", PROMPTS, PX_FORM_TEXT, PX_STYLE_PLAIN, "prompt", NULL, NULL},
    {"prompt (messages)", PROMPTS, PX_FORM_MESSAGES, PX_STYLE_PLAIN, "prompt", NULL, NULL},
    {"messages", LM, PX_FORM_MESSAGES, PX_STYLE_PLAIN, NULL, "messages", NULL},
    {"messages", PROMPTS, PX_FORM_MESSAGES, PX_STYLE_PLAIN, "messages", NULL, NULL},
    {"conversations (ShareGPT)", LM, PX_FORM_MESSAGES, PX_STYLE_PLAIN, NULL, "conversations", NULL},
    {"conversations (ShareGPT)", PROMPTS, PX_FORM_MESSAGES, PX_STYLE_PLAIN, "conversations", NULL, NULL},
    {"instruction", PROMPTS, PX_FORM_TEXT, PX_STYLE_ALPACA, "instruction", NULL, NULL},
    {"question", PROMPTS, PX_FORM_TEXT, PX_STYLE_QUESTION, "question", NULL, NULL},
    {"context", PROMPTS, PX_FORM_TEXT, PX_STYLE_PLAIN, "context", NULL, NULL},
    {"text", LM, PX_FORM_TEXT, PX_STYLE_PLAIN, NULL, "text", NULL},

    {"chosen+rejected (implicit prompt)", PAIRS | PROMPTS, PX_FORM_TEXT, PX_STYLE_PLAIN, NULL, "chosen", "rejected"},
    {"chosen+rejected (implicit prompt, messages)", PAIRS | PROMPTS, PX_FORM_MESSAGES, PX_STYLE_PLAIN, NULL, "chosen",
     "rejected"},
};
#define SHAPE_COUNT (sizeof shapes / sizeof shapes[0])

static const char *const valid_shapes[] = {
    [PX_ROWS_LM] = "{\"text\"}, {\"prompt\",\"completion\"}, {\"messages\"}, {\"conversations\"}, "
                   "{\"instruction\",\"output\"}, {\"ids\"} or {\"prompt_ids\",\"completion_ids\"}",
    [PX_ROWS_PAIRS] = "{\"prompt\",\"chosen\",\"rejected\"}, {\"chosen\",\"rejected\"} that begin with the same "
                      "prompt, "
                      "{\"conversations\",\"chosen\",\"rejected\"}, {\"instruction\",\"chosen\",\"rejected\"} or "
                      "{\"prompt_ids\",\"chosen_ids\",\"rejected_ids\"}",
    [PX_ROWS_PROMPTS] = "{\"prompt\"}, {\"messages\"}, {\"conversations\"}, {\"instruction\"} or {\"prompt_ids\"}",
};

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

/* An answer to a prompt of messages may be the text of one message. */
static bool field_fits(const px_shape *shape, const json_t *value, bool answer)
{
    if (shape->form == PX_FORM_TEXT) return json_is_string(value);
    if (shape->form == PX_FORM_IDS) return json_is_array(value);
    if (answer && shape->prompt && json_is_string(value)) return true;
    return json_is_array(value) || json_is_object(value); /* one turn may stand without its list */
}

/* How near a record comes to a shape: 2 for a field that fits, 1 for one of the wrong type. *bad: the first field that
 * is missing or wrong; NULL when the record has the shape. */
static int nearness(const px_shape *shape, const json_t *record, const char **bad)
{
    const char *names[3] = {shape->prompt, shape->answer, shape->rejected};
    int near = 0;
    *bad = NULL;
    for (int i = 0; i < 3; i++) {
        if (!names[i]) continue;
        const json_t *value = json_object_get(record, names[i]);
        bool fits = value && field_fits(shape, value, i > 0);
        near += fits ? 2 : value ? 1 : 0;
        if (!fits && !*bad) *bad = names[i];
    }
    return near;
}

static const px_shape *first_fit(const json_t *record, unsigned kinds)
{
    const char *bad;
    for (size_t i = 0; i < SHAPE_COUNT; i++)
        if ((shapes[i].kinds & kinds) && nearness(&shapes[i], record, &bad) > 0 && !bad) return &shapes[i];
    return NULL;
}

static px_status bad_field(const px_shape *shape, const json_t *record, const char *field)
{
    static const char *const wanted[] = {"a string", "a list of messages", "a list of token ids"};
    const json_t *value = json_object_get(record, field);
    if (!value)
        return px_fail(PX_DATA, "field \"%s\" is missing; valid is a record of the shape %s", field, shape->name);
    return px_fail(PX_DATA, "field \"%s\" is %s; valid is %s (shape %s)", field, type_name(value), wanted[shape->form],
                   shape->name);
}

/* "prompt (a string), answer (a number)" of the record's fields, for messages; as much as fits. */
static void describe(const json_t *record, char *text, size_t size)
{
    const char *name;
    json_t *value;
    size_t used = 0;
    text[0] = '\0';
    json_object_foreach((json_t *)record, name, value) {
        int n = snprintf(text + used, size - used, "%s%.40s (%s)", used ? ", " : "", name, type_name(value));
        if (n < 0 || (size_t)n >= size - used) {
            snprintf(text + used, size - used, "%s", used + 5 < size ? ", ..." : "");
            return;
        }
        used += (size_t)n;
    }
}

static bool is_unpaired(const json_t *record)
{
    return json_object_get(record, "prompt") && json_object_get(record, "completion") &&
           json_is_boolean(json_object_get(record, "label"));
}

px_status px_shape_find(const px_shape **shape, const json_t *record, px_kind kind)
{
    *shape = NULL;
    if (!json_is_object(record))
        return px_fail(PX_DATA, "the record is %s; valid is an object: %s", type_name(record), valid_shapes[kind]);
    if (is_unpaired(record) && kind != PX_ROWS_PROMPTS)
        return px_fail(PX_DATA, "an unpaired record (prompt, completion and a boolean label) cannot be used here; "
                                "valid is %s", valid_shapes[kind]);
    *shape = first_fit(record, 1u << kind);
    if (*shape) return PX_OK;
    /* Not usable: it has the shape of another kind of row, or nearly the shape of this kind. */
    const char *bad, *nearest_bad = NULL;
    const px_shape *other = first_fit(record, LM | PAIRS | PROMPTS), *nearest = NULL;
    int other_near = other ? nearness(other, record, &bad) : 0, most = 0;
    for (size_t i = 0; i < SHAPE_COUNT; i++) {
        int near = shapes[i].kinds & 1u << kind ? nearness(&shapes[i], record, &bad) : 0;
        if (near <= most) continue;
        most = near;
        nearest = &shapes[i];
        nearest_bad = bad;
    }
    if (nearest && most >= other_near) return bad_field(nearest, record, nearest_bad);
    if (other)
        return px_fail(PX_DATA, "a record of the shape %s cannot be used here; valid is %s", other->name,
                       valid_shapes[kind]);
    char fields[400];
    describe(record, fields, sizeof fields);
    return px_fail(PX_DATA, "the record has no known shape: its fields are %s; valid is %s",
                   fields[0] ? fields : "none at all", valid_shapes[kind]);
}

px_status px_shape_check(const px_shape *shape, const json_t *record, px_kind kind)
{
    const char *bad = NULL;
    if (!json_is_object(record))
        return px_fail(PX_DATA, "the record is %s; valid is an object like the first record (%s)", type_name(record),
                       shape->name);
    nearness(shape, record, &bad);
    if (bad) return bad_field(shape, record, bad);
    const px_shape *found;
    PX_TRY(px_shape_find(&found, record, kind));
    if (found != shape)
        return px_fail(PX_DATA, "a record of the shape %s; every record must have the shape of the first, %s",
                       found->name, shape->name);
    return PX_OK;
}
