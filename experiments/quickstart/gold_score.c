#include "gold_score.h"

#include "grammar.h"

#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS 400
#define SLOTS 66 /* one per aspect, then what is said of the maker and of the whole */
#define MAKER 64
#define WHOLE 65
#define SET_SIZE (1u << 16)

typedef struct token {
    char word[24];        /* without capitals at the start of a sentence */
    uint64_t class;       /* what the grammar sees: the word itself, or its kind */
    int first;            /* begins a sentence */
    int capital;
    const qs_aspect *aspect;
    const qs_adjective *adjective;
    const qs_feeling *feeling;
} token;

typedef struct text {
    token token[MAX_TOKENS];
    int count, words;
} text;

struct qs_gold {
    uint64_t triples[SET_SIZE]; /* classes of three neighbours that the language has; 0: free */
};

/* ---- words ------------------------------------------------------------------------------------------------------- */

static uint64_t hash_word(const char *word)
{
    uint64_t h = 0xcbf29ce484222325ull; /* FNV-1a */
    for (; *word; word++) h = (h ^ (unsigned char)*word) * 0x100000001b3ull;
    return h;
}

static int is_in(const char *word, const char *const *list, int count)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(word, list[i])) return 1;
    return 0;
}

static int is_one_of(const char *word, const char *list) { /* list: " word word " */
    char padded[32] = " ";
    strncat(padded, word, sizeof padded - 3);
    strcat(padded, " ");
    return strstr(list, padded) != NULL;
}

static void look_up(token *t)
{
    for (int i = 0; i < qs_aspect_count && !t->aspect; i++)
        if (!strcmp(t->word, qs_aspects[i].word)) t->aspect = &qs_aspects[i];
    for (int i = 0; i < qs_adjective_count && !t->adjective; i++)
        if (!strcmp(t->word, qs_adjectives[i].word)) t->adjective = &qs_adjectives[i];
    for (int i = 0; i < qs_feeling_count && !t->feeling; i++)
        if (!strcmp(t->word, qs_feelings[i].word)) t->feeling = &qs_feelings[i];
    if (t->aspect) t->class = t->aspect->plural ? 2 : 1;
    else if (t->adjective) t->class = strchr("aeiou", t->word[0]) ? 4 : 3;
    else if (is_in(t->word, qs_surnames, QS_SURNAMES)) t->class = 5;
    else if (is_in(t->word, qs_kin_women, QS_KIN) || is_in(t->word, qs_kin_men, QS_KIN)) t->class = 6;
    else if (is_one_of(t->word, " very really quite rather truly simply ")) t->class = 7;
    else t->class = hash_word(t->word);
}

static int is_mark(char c)
{
    return c == '.' || c == ',' || c == '!' || c == '?' || c == '"' || c == ';' || c == ':';
}

static int ends_sentence(const token *t)
{
    return !strcmp(t->word, ".") || !strcmp(t->word, "!") || !strcmp(t->word, "?");
}

static void split(const char *source, text *out)
{
    int first = 1;
    memset(out, 0, sizeof *out);
    while (*source && out->count < MAX_TOKENS) {
        if (isspace((unsigned char)*source) || *source == '"') {
            source++;
            continue;
        }
        token *t = &out->token[out->count++];
        size_t n = 1;
        if (!is_mark(*source)) {
            while (source[n] && !isspace((unsigned char)source[n]) && !is_mark(source[n])) n++;
            out->words++;
        }
        strncat(t->word, source, n < sizeof t->word - 1 ? n : sizeof t->word - 1);
        t->first = first;
        t->capital = t->word[0] >= 'A' && t->word[0] <= 'Z';
        if (first && t->capital && !is_in(t->word, qs_surnames, QS_SURNAMES) && strcmp(t->word, "I") != 0)
            t->word[0] = (char)(t->word[0] - 'A' + 'a');
        look_up(t);
        first = ends_sentence(t);
        source += n;
    }
}

/* ---- grammar: three neighbours at a time ------------------------------------------------------------------------- */

static uint64_t triple(const text *t, int i) { /* the classes of token i and the two before it */
    uint64_t stop = hash_word(".");
    uint64_t a = i >= 2 ? t->token[i - 2].class : stop, b = i >= 1 ? t->token[i - 1].class : stop;
    uint64_t h = (a * 0x9e3779b97f4a7c15ull ^ b) * 0xbf58476d1ce4e5b9ull;
    h = ((h ^ h >> 29) ^ t->token[i].class) * 0x94d049bb133111ebull;
    h ^= h >> 32;
    return h ? h : 1;
}

static uint64_t *find(uint64_t *set, uint64_t key)
{
    unsigned i = (unsigned)key & (SET_SIZE - 1);
    while (set[i] && set[i] != key) i = (i + 1) & (SET_SIZE - 1);
    return &set[i];
}

qs_gold *qs_gold_new(void)
{
    qs_gold *gold = calloc(1, sizeof *gold);
    text *t = malloc(sizeof *t);
    qs_rng rng = {20211};
    char body[1200];
    if (!gold || !t) {
        free(gold);
        free(t);
        return NULL;
    }
    for (int i = 0; i < 12000; i++) {
        qs_subject subject = qs_make_subject(&rng, 0);
        qs_style style = {qs_normal(&rng), 0};
        qs_write_body(&rng, &subject, &style, body, sizeof body);
        split(body, t);
        for (int k = 0; k < t->count; k++) {
            uint64_t key = triple(t, k);
            *find(gold->triples, key) = key;
        }
    }
    free(t);
    return gold;
}

void qs_gold_free(qs_gold *gold)
{
    free(gold);
}

static double judge_grammar(const qs_gold *gold, const text *t)
{
    int bad = 0;
    for (int i = 0; i < t->count; i++) {
        uint64_t key = triple(t, i);
        bad += *find((uint64_t *)gold->triples, key) != key;
        bad += t->token[i].first && !t->token[i].capital;
    }
    double share = t->count ? (double)bad / t->count : 1.0;
    return -8.0 * share;
}

/* ---- sentiment --------------------------------------------------------------------------------------------------- */

typedef struct opinion {
    int domain; /* -1: the prompt names none */
    int woman;  /* the maker; -1: not named */
    const char *maker;
    double sum[SLOTS];
    int said[SLOTS];
    uint64_t on, off; /* aspects that belong to the subject, and that do not */
    int maker_right, maker_wrong, strong_words;
    double waiting[16]; /* said before its aspect came */
    int waiting_count, slot, negated, too;
    double strength, weight;
} opinion;

static void say(opinion *o, double value)
{
    if (o->slot >= 0) {
        o->sum[o->slot] += value;
        o->said[o->slot]++;
    } else if (o->waiting_count < 16) {
        o->waiting[o->waiting_count++] = value;
    }
}

static void settle(opinion *o, int slot) { /* what waited was said of this */
    o->slot = slot;
    for (int i = 0; i < o->waiting_count; i++) say(o, o->waiting[i]);
    o->waiting_count = 0;
}

static void see_aspect(opinion *o, const qs_aspect *aspect)
{
    int index = (int)(aspect - qs_aspects);
    int belongs = o->domain < 0 || (aspect->domains >> o->domain & 1);
    if (belongs) o->on |= (uint64_t)1 << index;
    else o->off |= (uint64_t)1 << index;
    o->negated = 0;
    settle(o, index);
}

/* "not dull" is mild praise, "too long" blame; praise that does not fit its aspect ("a witty soup") counts half. */
static void see_adjective(opinion *o, const qs_adjective *adjective)
{
    double value = adjective->value;
    if (o->too) value = value > 0 ? -0.3 : value == 0 ? -1.1 : 1.2 * value;
    value *= o->strength;
    if (o->negated) value *= -0.6;
    if (value > 0 && o->slot >= 0 && o->slot < MAKER && !(adjective->kinds & qs_aspects[o->slot].kind)) value *= 0.5;
    if (value != 0) say(o, value * o->weight);
    o->strength = 1;
    o->too = 0;
}

static void see_feeling(opinion *o, const token *t)
{
    double value = t->feeling->value * o->strength * (o->negated ? -0.8 : 1.0) * o->weight;
    int slot = o->slot;
    if (is_one_of(t->word, " loved enjoyed liked admired hated disliked ")) o->slot = -1; /* of what comes next */
    say(o, value);
    if (slot != o->slot && o->waiting_count == 0) o->slot = slot;
    o->strength = 1;
}

/* Words that turn or weigh what follows. Returns 1 when the token was one. */
static int see_modifier(opinion *o, const text *t, int i)
{
    const char *word = t->token[i].word, *before = i > 0 ? t->token[i - 1].word : "";
    if (!strcmp(word, "little") && !strcmp(before, "a")) o->strength = 0.6;
    else if (is_one_of(word, " not never hardly nothing no cannot without far little ")) o->negated = 1;
    else if (is_one_of(word, " very really truly gladly ")) o->strength = 1.2, o->strong_words++;
    else if (is_one_of(word, " quite simply ")) o->strength = 1.1, o->strong_words++;
    else if (!strcmp(word, "rather")) o->strength = 0.9, o->strong_words++;
    else if (!strcmp(word, "too")) o->too = 1;
    else if (is_one_of(word, " because so ")) o->negated = 0;
    else if (!strcmp(word, "but")) o->negated = 0, o->weight = 1.2;
    else if (!strcmp(word, ",")) {
        o->negated = 0;
        if (o->weight == 0.6) o->weight = 1.1; /* the concession is over */
    } else return 0;
    return 1;
}

/* One sentence [begin, end). */
static void judge_sentence(opinion *o, const text *t, int begin, int end)
{
    int kin = -1;
    o->slot = -1;
    o->negated = o->too = o->waiting_count = 0;
    o->strength = o->weight = 1.0;
    for (int i = begin; i < end; i++)
        if (!strcmp(t->token[i].word, "but")) o->weight = 0.7;
    if (!strcmp(t->token[begin].word, "although")) o->weight = 0.6;
    int of_maker = 0;
    for (int i = begin; i < end; i++) {
        const token *k = &t->token[i];
        int she = !strcmp(k->word, "she"), he = !strcmp(k->word, "he");
        if (is_in(k->word, qs_kin_women, QS_KIN)) kin = 1;
        if (is_in(k->word, qs_kin_men, QS_KIN)) kin = 0;
        if (she || he) {
            int expected = kin >= 0 ? kin : o->woman;
            if (expected >= 0 && expected != she) o->maker_wrong++;
            else if (kin < 0) o->maker_right++, of_maker = 1;
        } else if (k->class == 5) {
            if (o->maker && strcmp(o->maker, k->word) != 0) o->maker_wrong++;
            else o->maker_right++, of_maker = 1;
        }
        if (k->aspect) see_aspect(o, k->aspect);
        else if (see_modifier(o, t, i)) continue;
        else if (k->adjective) see_adjective(o, k->adjective);
        else if (k->feeling) see_feeling(o, k);
    }
    if (o->waiting_count) settle(o, of_maker ? MAKER : WHOLE);
}

static void read_prompt(opinion *o, const char *prompt)
{
    static text t; /* 40 KB; the judge is a program of one thread */
    split(prompt, &t);
    o->domain = o->woman = -1;
    for (int i = 0; i < t.count; i++) {
        for (int d = 0; d < QS_DOMAINS; d++)
            if (!strcmp(t.token[i].word, qs_domain_noun[d])) o->domain = d;
        if (i == 0) continue;
        char name[24];
        strcpy(name, t.token[i - 1].word);
        if (t.token[i - 1].first) name[0] = (char)toupper((unsigned char)name[0]);
        for (int s = 0; s < QS_SURNAMES; s++)
            if (!strcmp(t.token[i].word, qs_surnames[s])) {
                o->maker = qs_surnames[s];
                if (is_in(name, qs_women, QS_NAMES)) o->woman = 1;
                if (is_in(name, qs_men, QS_NAMES)) o->woman = 0;
            }
    }
}

static double sum_up(const opinion *o)
{
    double sum = 0.0;
    for (int s = 0; s < SLOTS; s++)
        if (o->said[s] && (s >= MAKER || o->on >> s & 1)) sum += (s >= MAKER ? 0.7 : 1.0) * o->sum[s] / o->said[s];
    return 4.0 * tanh(sum / 5.0);
}

static int bits(uint64_t x)
{
    int n = 0;
    for (; x; x &= x - 1) n++;
    return n;
}

/* ---- repetition, shape ------------------------------------------------------------------------------------------- */

static double judge_repetition(const text *t)
{
    int content = 0, again = 0, triples = 0;
    for (int i = 0; i < t->count; i++) {
        const token *k = &t->token[i];
        if (k->aspect || k->adjective || k->feeling) {
            content++;
            for (int j = 0; j < i; j++)
                if (!strcmp(k->word, t->token[j].word)) {
                    again++;
                    break;
                }
        }
        for (int j = 2; j < i && i >= 2; j++)
            if (!strcmp(k->word, t->token[j].word) && !strcmp(t->token[i - 1].word, t->token[j - 1].word) &&
                !strcmp(t->token[i - 2].word, t->token[j - 2].word)) {
                triples++;
                break;
            }
    }
    return -2.5 * again / (content > 4 ? content : 4) - 4.0 * triples / (t->count > 10 ? t->count : 10);
}

static double judge_shape(const text *t, const opinion *o)
{
    int sentences = 0;
    for (int i = 0; i < t->count; i++) sentences += ends_sentence(&t->token[i]);
    double score = 0.0;
    if (t->words < 15) score -= 0.15 * (15 - t->words);
    if (t->words > 40) score -= 0.08 * (t->words - 40);
    if (t->count == 0 || !ends_sentence(&t->token[t->count - 1])) score -= 1.0;
    if (sentences > 5) score -= 0.4 * (sentences - 5);
    if (o->strong_words > 2) score -= 0.3 * (o->strong_words - 2);
    return score;
}

double qs_gold_score(const qs_gold *gold, const char *prompt, const char *completion, qs_gold_parts *parts)
{
    static text t;
    opinion o = {0};
    qs_gold_parts p;
    read_prompt(&o, prompt);
    split(completion, &t);
    for (int begin = 0, i = 0; i < t.count; i++)
        if (ends_sentence(&t.token[i]) || i == t.count - 1) {
            judge_sentence(&o, &t, begin, i + 1);
            begin = i + 1;
        }
    int on = bits(o.on), off = bits(o.off);
    p.sentiment = sum_up(&o);
    p.topic = 0.25 * (on < 4 ? on : 4) - 0.8 * off + (o.maker_right ? 0.3 : 0.0) - 0.7 * o.maker_wrong;
    p.grammar = judge_grammar(gold, &t);
    p.repetition = judge_repetition(&t);
    p.shape = judge_shape(&t, &o);
    if (parts) *parts = p;
    return p.sentiment + p.topic + p.grammar + p.repetition + p.shape;
}
