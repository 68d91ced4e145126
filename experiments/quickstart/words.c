#include "words.h"

#define FILM (1u << QS_FILM)
#define NOVEL (1u << QS_NOVEL)
#define FOOD_PLACE (1u << QS_RESTAURANT)
#define HOTEL (1u << QS_HOTEL)

const qs_aspect qs_aspects[] = {
    {"acting", 0, FILM, QS_STORY}, {"plot", 0, FILM | NOVEL, QS_STORY}, {"dialogue", 0, FILM | NOVEL, QS_STORY},
    {"music", 0, FILM, QS_STORY}, {"ending", 0, FILM | NOVEL, QS_STORY}, {"opening", 0, FILM | NOVEL, QS_STORY},
    {"photography", 0, FILM, QS_STORY}, {"humour", 0, FILM | NOVEL, QS_STORY}, {"story", 0, FILM | NOVEL, QS_STORY},
    {"actors", 1, FILM, QS_PEOPLE | QS_STORY}, {"scenes", 1, FILM, QS_STORY}, {"jokes", 1, FILM | NOVEL, QS_STORY},
    {"characters", 1, FILM | NOVEL, QS_STORY}, {"songs", 1, FILM, QS_STORY},
    {"prose", 0, NOVEL, QS_STORY}, {"style", 0, NOVEL, QS_STORY}, {"chapters", 1, NOVEL, QS_STORY},
    {"descriptions", 1, NOVEL, QS_STORY}, {"sentences", 1, NOVEL, QS_STORY}, {"letters", 1, NOVEL, QS_STORY},
    {"food", 0, FOOD_PLACE, QS_FOOD}, {"soup", 0, FOOD_PLACE, QS_FOOD}, {"bread", 0, FOOD_PLACE | HOTEL, QS_FOOD},
    {"fish", 0, FOOD_PLACE, QS_FOOD}, {"dessert", 0, FOOD_PLACE, QS_FOOD}, {"coffee", 0, FOOD_PLACE | HOTEL, QS_FOOD},
    {"service", 0, FOOD_PLACE | HOTEL, QS_PEOPLE}, {"terrace", 0, FOOD_PLACE | HOTEL, QS_ROOM},
    {"kitchen", 0, FOOD_PLACE, QS_ROOM}, {"waiters", 1, FOOD_PLACE, QS_PEOPLE},
    {"vegetables", 1, FOOD_PLACE, QS_FOOD}, {"noodles", 1, FOOD_PLACE, QS_FOOD}, {"cakes", 1, FOOD_PLACE, QS_FOOD},
    {"tables", 1, FOOD_PLACE, QS_ROOM}, {"cooks", 1, FOOD_PLACE, QS_PEOPLE},
    {"bathroom", 0, HOTEL, QS_ROOM}, {"bed", 0, HOTEL, QS_ROOM}, {"garden", 0, HOTEL, QS_ROOM},
    {"breakfast", 0, HOTEL, QS_FOOD}, {"pool", 0, HOTEL, QS_ROOM}, {"lobby", 0, HOTEL, QS_ROOM},
    {"rooms", 1, HOTEL, QS_ROOM}, {"corridors", 1, HOTEL, QS_ROOM}, {"porters", 1, HOTEL, QS_PEOPLE},
    {"guests", 1, HOTEL, QS_PEOPLE}, {"windows", 1, HOTEL, QS_ROOM},
};
const int qs_aspect_count = sizeof qs_aspects / sizeof qs_aspects[0];

const qs_adjective qs_adjectives[] = {
    {"superb", 1.8, QS_ANY}, {"wonderful", 1.8, QS_ANY}, {"excellent", 1.7, QS_ANY}, {"good", 1.1, QS_ANY},
    {"lovely", 1.4, QS_ANY}, {"great", 1.5, QS_ANY}, {"fine", 1.0, QS_ANY}, {"perfect", 1.8, QS_ANY},
    {"impressive", 1.4, QS_ANY}, {"memorable", 1.4, QS_ANY}, {"delightful", 1.6, QS_ANY},
    {"funny", 1.3, QS_STORY}, {"clever", 1.3, QS_STORY}, {"moving", 1.5, QS_STORY}, {"gripping", 1.5, QS_STORY},
    {"sharp", 1.2, QS_STORY}, {"witty", 1.3, QS_STORY}, {"touching", 1.4, QS_STORY},
    {"elegant", 1.3, QS_STORY | QS_ROOM},
    {"honest", 1.2, QS_STORY}, {"tender", 1.3, QS_STORY | QS_FOOD}, {"believable", 1.1, QS_STORY},
    {"delicious", 1.7, QS_FOOD}, {"tasty", 1.3, QS_FOOD}, {"fresh", 1.2, QS_FOOD}, {"crisp", 1.1, QS_FOOD},
    {"light", 1.0, QS_FOOD}, {"generous", 1.2, QS_FOOD | QS_PEOPLE},
    {"friendly", 1.3, QS_PEOPLE}, {"kind", 1.3, QS_PEOPLE}, {"polite", 1.1, QS_PEOPLE}, {"patient", 1.1, QS_PEOPLE},
    {"attentive", 1.3, QS_PEOPLE}, {"helpful", 1.2, QS_PEOPLE},
    {"clean", 1.1, QS_ROOM}, {"bright", 1.2, QS_ROOM}, {"comfortable", 1.4, QS_ROOM}, {"cosy", 1.3, QS_ROOM},
    {"spacious", 1.3, QS_ROOM}, {"charming", 1.5, QS_ROOM | QS_STORY | QS_PEOPLE},
    {"poor", -1.4, QS_ANY}, {"awful", -1.8, QS_ANY}, {"terrible", -1.8, QS_ANY}, {"bad", -1.3, QS_ANY},
    {"weak", -1.1, QS_STORY}, {"disappointing", -1.4, QS_ANY}, {"dreadful", -1.8, QS_ANY}, {"mediocre", -1.1, QS_ANY},
    {"forgettable", -1.2, QS_ANY}, {"dull", -1.3, QS_STORY}, {"boring", -1.4, QS_STORY}, {"clumsy", -1.3, QS_STORY},
    {"predictable", -1.1, QS_STORY}, {"flat", -1.1, QS_STORY}, {"shallow", -1.2, QS_STORY}, {"silly", -1.1, QS_STORY},
    {"lifeless", -1.4, QS_STORY}, {"tedious", -1.5, QS_STORY}, {"confusing", -1.1, QS_STORY},
    {"bland", -1.2, QS_FOOD}, {"stale", -1.4, QS_FOOD}, {"greasy", -1.3, QS_FOOD}, {"cold", -1.1, QS_FOOD | QS_ROOM},
    {"burnt", -1.4, QS_FOOD}, {"dry", -1.1, QS_FOOD}, {"salty", -1.0, QS_FOOD},
    {"rude", -1.6, QS_PEOPLE}, {"careless", -1.3, QS_PEOPLE}, {"unfriendly", -1.4, QS_PEOPLE},
    {"lazy", -1.2, QS_PEOPLE}, {"impatient", -1.2, QS_PEOPLE},
    {"dirty", -1.6, QS_ROOM}, {"dark", -1.0, QS_ROOM}, {"noisy", -1.3, QS_ROOM | QS_PEOPLE}, {"cramped", -1.2, QS_ROOM},
    {"damp", -1.2, QS_ROOM}, {"gloomy", -1.2, QS_ROOM}, {"shabby", -1.2, QS_ROOM},
    {"long", 0, QS_STORY}, {"short", 0, QS_STORY}, {"simple", 0, QS_STORY | QS_FOOD}, {"slow", 0, QS_STORY | QS_PEOPLE},
    {"strange", 0, QS_STORY}, {"sweet", 0, QS_FOOD}, {"small", 0, QS_ROOM | QS_FOOD}, {"quiet", 0, QS_ROOM | QS_PEOPLE},
    {"plain", 0, QS_ROOM | QS_FOOD}, {"familiar", 0, QS_STORY}, {"formal", 0, QS_PEOPLE},
    {"warm", 0, QS_ROOM | QS_FOOD},
};
const int qs_adjective_count = sizeof qs_adjectives / sizeof qs_adjectives[0];

const qs_feeling qs_feelings[] = {
    {"loved", 1.5}, {"enjoyed", 1.3}, {"liked", 1.1}, {"admired", 1.3}, {"hated", -1.6}, {"disliked", -1.2},
    {"smile", 1.2}, {"laugh", 1.2}, {"happy", 1.3}, {"won", 1.3}, {"interested", 1.1}, {"sleep", -1.3}, {"bored", -1.3},
    {"annoyed", -1.3}, {"tired", -1.1}, {"sad", -1.0}, {"lost", -1.1}, {"smiled", 1.0}, {"laughed", 1.0},
    {"clapped", 1.2}, {"yawned", -1.0}, {"complained", -1.2}, {"sighed", -0.9}, {"care", 1.1}, {"skill", 1.2},
    {"warmth", 1.2}, {"patience", 1.0}, {"imagination", 1.2}, {"knows", 0.9}, {"knew", 0.9}, {"know", 0.9},
    {"again", 1.0}, {"recommend", 1.2}, {"worth", 1.1}, {"pleasure", 1.4}, {"waste", -1.5},
    {"better", 1.0}, {"worse", -1.0},
};
const int qs_feeling_count = sizeof qs_feelings / sizeof qs_feelings[0];

const char *const qs_women[QS_NAMES] = {"Anna", "Maria", "Clara", "Ruth", "Helen", "Nina", "Laura", "Emma", "Julia",
                                        "Sara"};
const char *const qs_men[QS_NAMES] = {"David", "Thomas", "Peter", "Martin", "Victor", "Daniel", "Simon", "Oscar",
                                      "Henry", "Paul"};
const char *const qs_surnames[QS_SURNAMES] = {"Reed", "Holt", "Marsh", "Lane", "Novak", "Fischer", "Moreau", "Santos",
                                              "Kim", "Okafor", "Berg", "Costa", "Walsh", "Ito", "Grant", "Weber"};
const char *const qs_kin_women[QS_KIN] = {"sister", "mother", "wife", "daughter", "aunt", "niece"};
const char *const qs_kin_men[QS_KIN] = {"brother", "father", "husband", "son", "uncle", "nephew"};

const char *const qs_title_first[QS_TITLE_WORDS] = {
    "Silver", "Quiet", "Golden", "Broken", "Hidden", "Blue", "Empty", "Last", "Little", "Distant",
    "Burning", "Crooked", "Winter", "Painted", "Paper", "Secret", "Old", "Red", "White", "Stone"};
const char *const qs_title_second[QS_TITLE_WORDS] = {
    "Garden", "River", "Bridge", "Harbour", "Mirror", "Lantern", "Orchard", "Tower", "Road", "House",
    "Window", "Island", "Forest", "Clock", "Key", "Door", "Market", "Sparrow", "Station", "Valley"};

const char *const qs_domain_noun[QS_DOMAINS] = {"film", "novel", "restaurant", "hotel"};

unsigned long long qs_bits(qs_rng *rng)
{
    unsigned long long z = rng->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

double qs_uniform(qs_rng *rng)
{
    return (double)(qs_bits(rng) >> 11) * 0x1p-53;
}

double qs_normal(qs_rng *rng)
{
    double sum = -6.0;
    for (int i = 0; i < 12; i++) sum += qs_uniform(rng);
    return sum;
}

int qs_below(qs_rng *rng, int n)
{
    return (int)(qs_uniform(rng) * n);
}

int qs_chance(qs_rng *rng, double p)
{
    return qs_uniform(rng) < p;
}
