#include "grammar.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* A template is text with {slots}. Slots agree with what was said before them in the same text: number of the latest
 * aspect, gender of the creator and of the relative, tense of the review, liking of the sentence.
 *   {a} {s} {p}     a fresh aspect, any / singular / plural        {be} {was} {seem} {get}  verbs in its number
 *   {it}            its pronoun                                    {+} {-}  adjective phrase with / against the liking
 *   {b+} {b-} {n}   one bare adjective; a neutral one              {vp}     what it did to the writer
 *   {He} {last}     the creator                                    {does} {with} {craft}    what the creator does, how
 *   {kin} {she}     a relative                                     {react}  how the relative reacted
 *   {noun} {again} {when} {When} {city} {nth} {t} {name} {first} {his} {place} {dish} {thing} */
typedef struct template {
    const char *text;
    int sign; /* +1 or -1: only when pleased or displeased; 0: both */
    unsigned domains; /* 0: all */
} template;

typedef struct writer {
    qs_rng *rng;
    const qs_subject *subject;
    const qs_style *style;
    char *out;
    size_t size, used;
    uint64_t said_aspects;
    uint64_t said_adjectives[2];
    int sign, past, plural, kin_woman;
    unsigned kind; /* of the latest aspect */
} writer;

static void put(writer *w, const char *text)
{
    size_t n = strlen(text);
    if (w->used + n + 1 > w->size) return;
    memcpy(w->out + w->used, text, n + 1);
    w->used += n;
}

static const char *pick(writer *w, const char *const *list, int count)
{
    return list[qs_below(w->rng, count)];
}
#define PICK(w, ...)                                                                                                   \
    pick(w, (const char *const[]){__VA_ARGS__}, (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

static int slip(writer *w)
{
    return w->style && w->style->slips > 0 && qs_chance(w->rng, w->style->slips);
}

/* ---- aspects and adjectives -------------------------------------------------------------------------------------- */

static void put_aspect(writer *w, int number) { /* number: 0 singular, 1 plural, -1 any */
    qs_domain domain = w->subject->domain;
    if (slip(w)) domain = (qs_domain)qs_below(w->rng, QS_DOMAINS);
    int fresh = !slip(w), index = 0;
    for (int tries = 0; tries < 400; tries++) {
        index = qs_below(w->rng, qs_aspect_count);
        const qs_aspect *aspect = &qs_aspects[index];
        if (!(aspect->domains >> domain & 1)) continue;
        if (number >= 0 && aspect->plural != number) continue;
        if (!fresh || !(w->said_aspects >> index & 1) || tries > 200) break;
    }
    w->said_aspects |= (uint64_t)1 << index;
    w->plural = qs_aspects[index].plural;
    w->kind = qs_aspects[index].kind;
    put(w, qs_aspects[index].word);
}

static void put_adjective_to(writer *w, int sign, double most) { /* sign 0: neutral; most: bound of |value| */
    int index = 0, fresh = !slip(w);
    unsigned kind = slip(w) ? QS_ANY : w->kind;
    for (int tries = 0; tries < 400; tries++) {
        index = qs_below(w->rng, qs_adjective_count);
        const qs_adjective *adjective = &qs_adjectives[index];
        if (!(adjective->kinds & kind)) continue;
        if (adjective->kinds == QS_ANY && w->kind != QS_ANY && qs_chance(w->rng, 0.4)) continue;
        if (sign == 0 ? adjective->value != 0 : adjective->value * sign <= 0) continue;
        if (adjective->value * sign > most) continue;
        if (!fresh || !(w->said_adjectives[index / 64] >> (index % 64) & 1) || tries > 200) break;
    }
    w->said_adjectives[index / 64] |= (uint64_t)1 << (index % 64);
    put(w, qs_adjectives[index].word);
}

static void put_adjective(writer *w, int sign)
{
    put_adjective_to(w, sign, 2);
}

/* Comes after a form of "to be": negation, intensifier, one adjective or two. */
static void put_adjective_phrase(writer *w, int sign)
{
    double u = qs_uniform(w->rng);
    if (u < 0.13) {
        put(w, PICK(w, "not ", "never ", "not at all ", "far from "));
        put_adjective(w, -sign);
    } else if (sign < 0 && u < 0.25) {
        put(w, PICK(w, "too ", "much too "));
        put_adjective(w, 0);
    } else if (sign < 0 && u < 0.30) {
        put(w, "hardly ");
        put_adjective(w, 1);
    } else if (u < 0.42) {
        put_adjective(w, sign);
        put(w, " and ");
        put_adjective(w, sign);
    } else {
        if (u < 0.54) put(w, PICK(w, "very ", "quite ", "rather ", "a little "));
        else if (u < 0.66) put(w, PICK(w, "really ", "truly ", "simply "));
        put_adjective_to(w, sign, u < 0.54 ? 1.5 : 2); /* not "very superb" */
    }
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

static int number_of_verb(writer *w)
{
    return slip(w) ? !w->plural : w->plural;
}

static const char *creator_pronoun(writer *w)
{
    int woman = w->subject->woman;
    if (slip(w)) woman = !woman;
    return woman ? "She" : "He";
}

static void put_effect(writer *w)
{
    if (w->sign > 0)
        put(w, PICK(w, "made me smile", "made me laugh", "made me happy", "won me over", "kept me interested"));
    else
        put(w, PICK(w, "put me to sleep", "bored me", "annoyed me", "made me tired", "lost me", "left me cold"));
}

static const char *creator_verb(writer *w)
{
    static const char *const now[] = {"directs", "writes", "cooks", "runs the place"};
    static const char *const then[] = {"directed the film", "wrote it", "cooked", "ran the place"};
    return (w->past ? then : now)[w->subject->domain];
}

static const char *manner(writer *w)
{
    if (w->sign > 0)
        return PICK(w, "with great care", "with skill", "with warmth", "with skill and imagination",
                    "with real patience");
    return PICK(w, "without care", "with no imagination", "with little skill", "without any warmth",
                "with no patience");
}

static const char *craft(writer *w)
{
    switch (w->subject->domain) {
    case QS_FILM: return PICK(w, "tell a story", "lead actors", "make a film");
    case QS_NOVEL: return PICK(w, "tell a story", "write a novel", "build a plot");
    case QS_RESTAURANT: return PICK(w, "make a soup", "cook fish", "treat a guest");
    default: return PICK(w, "treat a guest", "run a hotel", "furnish a room");
    }
}

static const char *once_more(writer *w)
{
    static const char *const what[] = {"watch it", "read it", "eat there", "stay there"};
    return what[w->subject->domain];
}

static const char *know(writer *w)
{
    if (w->sign > 0) return w->past ? "knew" : "knows";
    return w->past ? "did not know" : "does not know";
}

static void put_kin(writer *w)
{
    w->kin_woman = qs_below(w->rng, 2);
    put(w, pick(w, w->kin_woman ? qs_kin_women : qs_kin_men, QS_KIN));
}

static void put_title(writer *w)
{
    put(w, "The ");
    put(w, w->subject->title[0]);
    put(w, " ");
    put(w, w->subject->title[1]);
}

static const char *when(writer *w)
{
    return PICK(w, "last night", "last week", "on Sunday", "yesterday", "two days ago", "this summer", "on Friday");
}

static void put_capital(writer *w, const char *text)
{
    size_t at = w->used;
    put(w, text);
    if (w->out[at] >= 'a' && w->out[at] <= 'z') w->out[at] = (char)(w->out[at] - 'a' + 'A');
}

static void put_adjective_of_whole(writer *w)
{
    w->kind = w->subject->domain < QS_RESTAURANT ? QS_STORY : QS_ROOM;
    put_adjective(w, w->sign);
}

static int fill_word_slot(writer *w, const char *slot)
{
    static const char *const be[2][2] = {{"is", "are"}, {"was", "were"}};
    if (!strcmp(slot, "a")) put_aspect(w, -1);
    else if (!strcmp(slot, "s")) put_aspect(w, 0);
    else if (!strcmp(slot, "p")) put_aspect(w, 1);
    else if (!strcmp(slot, "be")) put(w, be[w->past][number_of_verb(w)]);
    else if (!strcmp(slot, "was")) put(w, be[1][number_of_verb(w)]);
    else if (!strcmp(slot, "is")) put(w, be[w->past][0]);
    else if (!strcmp(slot, "seem")) put(w, w->past ? "seemed" : number_of_verb(w) ? "seem" : "seems");
    else if (!strcmp(slot, "get")) put(w, w->past ? "got" : number_of_verb(w) ? "get" : "gets");
    else if (!strcmp(slot, "it")) put(w, number_of_verb(w) ? "they" : "it");
    else if (!strcmp(slot, "+")) put_adjective_phrase(w, w->sign);
    else if (!strcmp(slot, "-")) put_adjective_phrase(w, -w->sign);
    else if (!strcmp(slot, "b+")) put_adjective(w, w->sign);
    else if (!strcmp(slot, "b-")) put_adjective(w, -w->sign);
    else if (!strcmp(slot, "n")) put_adjective(w, 0);
    else if (!strcmp(slot, "g+")) put_adjective_of_whole(w);
    else return 0;
    return 1;
}

static int fill_person_slot(writer *w, const char *slot)
{
    if (!strcmp(slot, "He")) put(w, creator_pronoun(w));
    else if (!strcmp(slot, "last")) put(w, w->subject->last);
    else if (!strcmp(slot, "does")) put(w, creator_verb(w));
    else if (!strcmp(slot, "with")) put(w, manner(w));
    else if (!strcmp(slot, "know")) put(w, know(w));
    else if (!strcmp(slot, "craft")) put(w, craft(w));
    else if (!strcmp(slot, "again")) put(w, once_more(w));
    else if (!strcmp(slot, "noun")) put(w, qs_domain_noun[w->subject->domain]);
    else if (!strcmp(slot, "vp")) put_effect(w);
    else if (!strcmp(slot, "kin")) put_kin(w);
    else if (!strcmp(slot, "she")) put(w, w->kin_woman ? "she" : "he");
    else if (!strcmp(slot, "react"))
        put(w, w->sign > 0 ? PICK(w, "smiled", "laughed", "clapped") : PICK(w, "yawned", "complained", "sighed"));
    else return 0;
    return 1;
}

static int fill_place_slot(writer *w, const char *slot)
{
    if (!strcmp(slot, "when")) put(w, when(w));
    else if (!strcmp(slot, "When")) put_capital(w, when(w));
    else if (!strcmp(slot, "city"))
        put(w, PICK(w, "Lisbon", "Vienna", "Dublin", "Oslo", "Prague", "Boston", "Kyoto", "Lyon"));
    else if (!strcmp(slot, "nth")) put(w, PICK(w, "first", "second", "third", "new", "latest"));
    else if (!strcmp(slot, "t")) put_title(w);
    else if (!strcmp(slot, "name")) put(w, w->subject->first), put(w, " "), put(w, w->subject->last);
    else if (!strcmp(slot, "first")) put(w, w->subject->first);
    else if (!strcmp(slot, "he")) put(w, w->subject->woman ? "she" : "he");
    else if (!strcmp(slot, "Her")) put(w, w->kin_woman ? "She" : "He");
    else if (!strcmp(slot, "his")) put(w, w->subject->woman ? "her" : "his");
    else if (!strcmp(slot, "him")) put(w, w->subject->woman ? "her" : "him");
    else return 0;
    return 1;
}

static void expand(writer *w, const char *text)
{
    char slot[16], letter[2] = {0};
    while (*text) {
        if (*text != '{') {
            letter[0] = *text++;
            put(w, letter);
            continue;
        }
        size_t n = strcspn(++text, "}");
        snprintf(slot, sizeof slot, "%.*s", (int)n, text);
        text += n + 1;
        if (!fill_word_slot(w, slot) && !fill_person_slot(w, slot) && !fill_place_slot(w, slot)) put(w, "<?>");
    }
}

/* "a awful film" becomes "an awful film". */
static void fix_articles(char *text, size_t size)
{
    for (char *p = text; (p = strstr(p, " a ")) != NULL; p++) {
        size_t length = strlen(text);
        if (!strchr("aeiou", p[3]) || !strncmp(p + 3, "un", 2) || length + 2 > size) continue;
        memmove(p + 3, p + 2, strlen(p + 2) + 1);
        p[2] = 'n';
    }
}

int qs_count_words(const char *text)
{
    int words = 0;
    for (const char *p = text; *p; p++) words += *p != ' ' && (p == text || p[-1] == ' ');
    return words;
}

/* ---- reviews ----------------------------------------------------------------------------------------------------- */

#define SHOWS (1u << QS_FILM | 1u << QS_NOVEL)
#define PLACES (1u << QS_RESTAURANT | 1u << QS_HOTEL)

static const template middles[] = {
    {"The {a} {be} {+}.", 0, 0},
    {"The {a} {be} {+}.", 0, 0},
    {"The {a} {be} {+}, and the {a} {be} {+}.", 0, 0},
    {"The {a} {be} {+}, and the {a} {be} {+}.", 0, 0},
    {"The {a} {be} {-}, but the {a} {be} {+}.", 0, 0},
    {"Although the {a} {be} {-}, the {a} {be} {+}.", 0, 0},
    {"I liked the {a}, because {it} {be} {+}.", 1, 0},
    {"I enjoyed the {a}, because {it} {be} {+}.", 1, 0},
    {"I loved the {a} and admired the {a}.", 1, 0},
    {"I hated the {a}, because {it} {be} {+}.", -1, 0},
    {"I disliked the {a}, because {it} {be} {+}.", -1, 0},
    {"The {a} {vp}.", 0, 0},
    {"The {a} {vp}, and the {a} {be} {+}.", 0, 0},
    {"{He} {does} {with}.", 0, 0},
    {"{He} {does} {with}, and the {a} {be} {+}.", 0, 0},
    {"{last} {know} how to {craft}.", 0, 0},
    {"{last} {know} how to {craft}, so the {a} {be} {+}.", 0, 0},
    {"My {kin} thought that the {a} {was} {+}, and {she} {react}.", 0, 0},
    {"Even the {a} {be} {+}.", 0, 0},
    {"There {is} nothing {b-} about the {a}.", 0, 0},
    {"The {a} {seem} {b-} at first, but {it} {get} better.", 1, 0},
    {"The {a} {seem} {b-} at first, but {it} {get} worse.", -1, 0},
    {"What I liked most {is} the {s}.", 1, 0},
    {"What I disliked most {is} the {s}.", -1, 0},
    {"Both the {a} and the {a} are {+}.", 0, SHOWS},
};

static const template ends[] = {
    {"I would gladly {again} again.", 1, 0},
    {"I will {again} again.", 1, 0},
    {"I can recommend it to everyone.", 1, 0},
    {"It {is} worth the money.", 1, 0},
    {"It {is} a pleasure from the first minute to the last.", 1, SHOWS},
    {"In the end, it {is} a {g+} {noun}.", 0, 0},
    {"All in all, it {is} a {g+} {noun}.", 0, 0},
    {"I would not {again} again.", -1, 0},
    {"I will never {again} again.", -1, 0},
    {"I cannot recommend it to anyone.", -1, 0},
    {"It {is} not worth the money.", -1, 0},
    {"It {is} a waste of time.", -1, 0},
};

static const template openings[] = {
    {"I watched {t}, a film by {name}, {when}.", 0, 1u << QS_FILM},
    {"{t} is the {nth} film by {name}.", 0, 1u << QS_FILM},
    {"{When} we saw {t}, a film by {name}.", 0, 1u << QS_FILM},
    {"{name} has made a film called {t}.", 0, 1u << QS_FILM},
    {"My {kin} took me to {t}, the {nth} film by {name}.", 0, 1u << QS_FILM},
    {"I read {t}, a novel by {name}, {when}.", 0, 1u << QS_NOVEL},
    {"{t} is the {nth} novel by {name}.", 0, 1u << QS_NOVEL},
    {"My {kin} gave me {t}, a novel by {name}.", 0, 1u << QS_NOVEL},
    {"{name} has written a novel called {t}.", 0, 1u << QS_NOVEL},
    {"{When} I finished {t}, the {nth} novel by {name}.", 0, 1u << QS_NOVEL},
    {"{When} we ate at {t}, the restaurant of {name}.", 0, 1u << QS_RESTAURANT},
    {"{name} has opened a restaurant called {t} in {city}.", 0, 1u << QS_RESTAURANT},
    {"{t} is a restaurant in {city}, and {name} is the chef.", 0, 1u << QS_RESTAURANT},
    {"My {kin} took me to {t}, the restaurant of {name}.", 0, 1u << QS_RESTAURANT},
    {"We stayed at {t}, the hotel of {name}, {when}.", 0, 1u << QS_HOTEL},
    {"{t} is a hotel in {city}, and {name} is the owner.", 0, 1u << QS_HOTEL},
    {"{name} runs a hotel called {t} in {city}.", 0, 1u << QS_HOTEL},
    {"{When} my {kin} and I slept at {t}, the hotel of {name}.", 0, 1u << QS_HOTEL},
};

#define COUNT(list) ((int)(sizeof(list) / sizeof((list)[0])))

static const template *choose(writer *w, const template *list, int count)
{
    for (;;) {
        const template *t = &list[qs_below(w->rng, count)];
        if (t->sign && t->sign != w->sign) continue;
        if (t->domains && !(t->domains >> w->subject->domain & 1)) continue;
        return t;
    }
}

qs_subject qs_make_subject(qs_rng *rng, int heldout)
{
    qs_subject subject;
    int a, b;
    do {
        a = qs_below(rng, QS_TITLE_WORDS);
        b = qs_below(rng, QS_TITLE_WORDS);
    } while (((7 * a + 3 * b) % 10 == 0) != !!heldout);
    subject.title[0] = qs_title_first[a];
    subject.title[1] = qs_title_second[b];
    subject.domain = (qs_domain)qs_below(rng, QS_DOMAINS);
    subject.woman = qs_below(rng, 2);
    subject.first = (subject.woman ? qs_women : qs_men)[qs_below(rng, QS_NAMES)];
    subject.last = qs_surnames[qs_below(rng, QS_SURNAMES)];
    return subject;
}

void qs_write_opening(qs_rng *rng, const qs_subject *subject, char *out, size_t size)
{
    writer w = {.rng = rng, .subject = subject, .out = out, .size = size, .sign = 1};
    out[0] = '\0';
    expand(&w, choose(&w, openings, COUNT(openings))->text);
}

/* A pleased writer is more likely to be pleased in each sentence. Rational, so that no libm decides about bytes. */
static void choose_sign(writer *w)
{
    double x = 4 * w->style->liking, p = x > 0 ? 1 - 0.5 / (1 + x + x * x / 2) : 0.5 / (1 - x + x * x / 2);
    w->sign = qs_chance(w->rng, p) ? 1 : -1;
}

static void write_sentences(writer *w)
{
    int sentences = 2 + qs_below(w->rng, 2);
    size_t start = 0;
    w->past = qs_chance(w->rng, 0.4);
    for (int i = 0; i < sentences; i++) {
        choose_sign(w);
        if (w->used) put(w, " ");
        if (i > 0 && slip(w)) { /* says the last sentence once more */
            char again[400];
            snprintf(again, sizeof again, "%s", w->out + start);
            again[strcspn(again, ".") + 1] = '\0';
            put(w, again);
            continue;
        }
        start = w->used;
        expand(w, choose(w, middles, COUNT(middles))->text);
    }
    if (qs_chance(w->rng, 0.75)) {
        w->sign = w->style->liking > 0 ? 1 : -1;
        put(w, " ");
        expand(w, choose(w, ends, COUNT(ends))->text);
    }
}

void qs_write_body(qs_rng *rng, const qs_subject *subject, const qs_style *style, char *out, size_t size)
{
    for (;;) {
        writer w = {.rng = rng, .subject = subject, .style = style, .out = out, .size = size, .sign = 1};
        out[0] = '\0';
        write_sentences(&w);
        fix_articles(out, size);
        int words = qs_count_words(out);
        if (words > 45 || words < 12) continue;
        if (words >= 15 && words <= 40) break;
        if (style->slips > 0 && qs_chance(rng, 0.3)) break;
    }
    if (style->slips > 0 && qs_chance(rng, style->slips)) { /* breaks off in the middle */
        size_t length = strlen(out), cut = length * (2 + (size_t)qs_below(rng, 3)) / 5;
        while (cut < length && out[cut] != ' ') cut++;
        out[cut] = '\0';
    }
}

/* ---- stories: another register of the same words, for the corpus alone ------------------------------------------- */

static const template beginnings[] = {
    {"{When} {first} went to the cinema with {his} {kin}.", 0, 1u << QS_FILM},
    {"{first} bought two tickets for a film and called {his} {kin}.", 0, 1u << QS_FILM},
    {"{first} found an old novel in the house of {his} {kin}.", 0, 1u << QS_NOVEL},
    {"{When} {first} read a novel on the train to {city}.", 0, 1u << QS_NOVEL},
    {"{When} {first} ate in a small restaurant in {city}.", 0, 1u << QS_RESTAURANT},
    {"{first} was hungry, so {he} walked to the restaurant near the station.", 0, 1u << QS_RESTAURANT},
    {"{first} and {his} {kin} slept in a hotel by the sea.", 0, 1u << QS_HOTEL},
    {"It was late when {first} came to the hotel in {city}.", 0, 1u << QS_HOTEL},
};

static const template events[] = {
    {"The {a} {was} {+}, and {he} was happy.", 1, 0},
    {"The {a} {was} {+}, so {he} was sad.", -1, 0},
    {"The {a} {was} {-}, but the {a} {was} {+}.", 0, 0},
    {"\"The {a} {be} {+},\" {he} said.", 0, 0},
    {"\"I like the {a},\" {he} said, \"because {it} {be} {+}.\"", 1, 0},
    {"\"Why {be} the {a} so {b+}?\" {he} asked, but nobody knew.", -1, 0},
    {"A friend told {him} that the {a} {was} {+}.", 0, 0},
    {"After an hour {he} forgot the {a}, because the {a} {was} {+}.", 1, 0},
    {"After an hour {he} was tired, because the {a} {was} {+}.", -1, 0},
    {"{He} thought of the {a} and smiled.", 1, 0},
    {"{He} looked at the {a} and sighed.", -1, 0},
};

static const template finishes[] = {
    {"On the way home {he} laughed and sang.", 1, 0},
    {"{He} wanted to come again soon.", 1, 0},
    {"That night {he} wrote a long letter about the {s}.", 1, 0},
    {"On the way home it rained, and {he} was silent.", -1, 0},
    {"{He} never came back to that {noun}.", -1, 0},
    {"{He} asked for the money, but {he} did not get it.", -1, PLACES},
};

void qs_write_story(qs_rng *rng, char *out, size_t size)
{
    qs_subject subject = qs_make_subject(rng, 0);
    qs_style style = {qs_normal(rng) * 0.7, 0};
    writer w = {.rng = rng, .subject = &subject, .style = &style, .out = out, .size = size, .past = 1, .sign = 1};
    out[0] = '\0';
    expand(&w, choose(&w, beginnings, COUNT(beginnings))->text);
    for (int i = 2 + qs_below(rng, 3); i > 0; i--) {
        choose_sign(&w);
        put(&w, " ");
        expand(&w, choose(&w, events, COUNT(events))->text);
    }
    w.sign = style.liking > 0 ? 1 : -1;
    put(&w, " ");
    expand(&w, choose(&w, finishes, COUNT(finishes))->text);
    fix_articles(out, size);
}
