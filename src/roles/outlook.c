/* A run's plan before it runs: schedule, memory, disk and time of every stage. */
#include "outlook.h"
#include "split.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void px_outlook_add(px_outlook_part *parts, int *count, const char *name, double value, const char *text)
{
    PX_CHECK(*count < PX_OUTLOOK_PARTS);
    px_outlook_part *part = &parts[(*count)++];
    snprintf(part->name, sizeof part->name, "%s", name);
    snprintf(part->text, sizeof part->text, "%s", text);
    part->value = value;
}

/* ---- disk ------------------------------------------------------------------------------------------------------------------ */

typedef struct disk {
    double checkpoint_bytes, checkpoint_files; /* of one */
    double saves;                              /* in the whole stage */
    double result_bytes;                       /* of the stage's result */
    double bytes, files;                       /* at most at one time */
} disk;

static void add_learner(const px_session *session, const px_model *model, disk *d, double *weights)
{
    double bytes = 4.0 * (double)px_model_parameters(model);
    d->checkpoint_bytes += 3.0 * bytes; /* weights and two moments */
    d->checkpoint_files += 3.0 + (session->tokenizer_dir[0] != '\0' ? 2.0 : 0.0);
    *weights += bytes;
}

/* Checkpoints that are there at once, and how many are written. */
static void count_checkpoints(const px_session *session, disk *d)
{
    const px_stage *stage = session->stage;
    double total = (double)session->total, keep = INFINITY;
    double interval = (double)px_stage_int(stage, "checkpointing.interval");
    double recovery = (double)px_stage_int(stage, "checkpointing.recovery_interval");
    px_stage_number(stage, "checkpointing.keep", &keep);
    double grid = interval > 0.0 ? floor(total / interval) : 0.0, last = interval > 0.0 && fmod(total, interval) == 0.0 ? 0.0 : 1.0;
    double slots = recovery > 0.0 ? floor(total / recovery) - (recovery == 1.0 ? grid : 0.0) : 0.0;
    double initial = px_stage_bool(stage, "checkpointing.initial") ? 1.0 : 0.0;
    double best = px_stage_is_set(stage, "checkpointing.keep_best") ? 1.0 : 0.0;
    double kept = fmin(grid, keep) + last + initial + best + fmin(2.0, slots) + 1.0; /* and the one being written */
    d->saves = grid + last + initial + slots;
    d->bytes += kept * d->checkpoint_bytes;
    d->files += kept * (d->checkpoint_files + 2.0);
}

/* A token's seven float32 hardly compress, its indices all but vanish: 26 bytes, as measured; a text 1.5 bytes a token. */
static void add_samples(const px_session *session, double completion, disk *d)
{
    const px_stage *stage = session->stage;
    double every = (double)px_stage_int(stage, "reporting.samples.every");
    if (session->algorithm != &px_algorithm_ppo || every == 0.0) {
        return;
    }
    double prompt = px_dataset_summary(session->train)->mean_length, iterations = floor((double)session->total / every);
    double samples = session->ppo.prompts_per_iteration * session->ppo.samples_per_prompt;
    double token = px_stage_bool(stage, "reporting.samples.tokens") ? 26.0 : 0.0;
    d->bytes += iterations * samples * (64.0 + 1.5 * (prompt + completion) + completion * token + 2.0 * prompt);
    d->files += ceil((double)session->total / (double)px_stage_int(stage, "reporting.samples.iterations_per_file"));
}

static disk reckon_disk(const px_session *session, double completion)
{
    disk d = {.files = 4.0}; /* run.h5, config.yaml, latest, and examples.json or best */
    double weights = 0.0, columns = session->algorithm->metric_count + PX_EXTRA_METRICS;
    if (session->algorithm == &px_algorithm_ppo) {
        add_learner(session, &session->parts.policy, &d, &weights);
        add_learner(session, &session->parts.critic, &d, &weights);
    } else {
        add_learner(session, &session->model, &d, &weights);
    }
    d.result_bytes = weights;
    d.bytes += weights + 65536.0 + (double)session->total * columns * sizeof(double); /* results, run.h5 */
    d.files += d.checkpoint_files;
    count_checkpoints(session, &d);
    add_samples(session, completion, &d);
    return d;
}

/* Tokens of a completion as the demonstrations have them: what a model that learnt them will answer with. */
static double mean_completion(const px_session *session)
{
    double sum = 0.0, rows = (double)px_dataset_count(session->train);
    for (int64_t i = 0; i < px_dataset_count(session->train); i++) {
        px_row row;
        px_dataset_row(session->train, i, &row);
        sum += row.length - row.prompt_length;
    }
    return sum / rows;
}

/* ---- who does what ------------------------------------------------------------------------------------------------------- */

static int overlap(int first, int count, int other, int other_count)
{
    int low = first > other ? first : other, a = first + count, b = other + other_count, high = a < b ? a : b;
    return high > low ? high - low : 0;
}

/* Ranks that compute while this one does, on its node: those of its turn, or all where roles do not wait for each other. */
static int together(const px_session *session, int rank, int node_first, int node_count)
{
    const px_placement *p = &session->placement;
    int core = px_placement_core(p), first = rank < p->learners ? 0 : rank < core ? p->learners : core;
    int count = rank < p->learners ? p->learners : rank < core ? p->scorers : p->ranks - core;
    bool ahead = p->split && px_stage_int(session->stage, "env_runners.max_staleness") > 0;
    return ahead ? node_count : overlap(first, count, node_first, node_count);
}

/* Threads and neighbours of the ranks [first, first + count), over the nodes that they are on. */
static px_crew crew_of(const px_session *session, const px_layout *layout, int first, int count)
{
    px_crew crew = {.first = first, .count = count};
    double fixed;
    bool given = px_stage_number(session->stage, "run.threads_per_rank", &fixed);
    for (int n = 0; n < px_layout_nodes(layout); n++) {
        int node_first;
        const px_node_group *group = px_layout_node(layout, n, &node_first);
        int here = overlap(first, count, node_first, group->ranks_per_node);
        if (here == 0) {
            continue;
        }
        int rank = first > node_first ? first : node_first, busy = together(session, rank, node_first, group->ranks_per_node);
        int share = group->ranks_per_node * group->cores / busy, threads = given ? (int)fixed : share > 0 ? share : 1;
        crew.threads = crew.nodes == 0 || threads < crew.threads ? threads : crew.threads;
        crew.together = busy > crew.together ? busy : crew.together;
        crew.per_node = here > crew.per_node ? here : crew.per_node;
        crew.nodes++;
    }
    return crew;
}

px_crew px_outlook_crew(const px_session *session, const px_layout *layout, px_role role)
{
    const px_placement *p = &session->placement;
    const int counts[] = {p->learners, p->scorers, p->env_runners, p->evaluators, p->spares};
    int first = 0;
    for (int r = 0; r < (int)role; r++) {
        first += counts[r];
    }
    return crew_of(session, layout, first, counts[role]);
}

static const px_plan *plan_of(const px_session *session, px_role role)
{
    return role == PX_ROLE_LEARNER ? &session->plan : role == PX_ROLE_SCORER ? &session->scorer_plan : &session->runner_plan;
}

static void list_memory(const px_session *session, px_outlook_role *role)
{
    const px_plan *plan = plan_of(session, role->role);
    role->frozen_bytes = (double)plan->frozen;
    for (int i = 0; i < plan->count; i++) {
        if (role->first > 0 && strcmp(plan->rows[i].role, "collector") == 0) { /* rank 0 alone has it */
            continue;
        }
        px_outlook_add(role->memory, &role->memory_count, plan->rows[i].role, (double)plan->rows[i].bytes, plan->rows[i].parts);
        role->memory_bytes += (double)plan->rows[i].bytes;
    }
}

static void list_roles(const px_session *session, const px_layout *layout, px_outlook *o)
{
    const px_placement *p = &session->placement;
    for (int r = 0; r < p->ranks; r++) {
        px_outlook_role *last = o->role_count > 0 ? &o->roles[o->role_count - 1] : NULL;
        if (last == NULL || strcmp(last->name, px_role_name(p, r)) != 0) {
            PX_CHECK(o->role_count < PX_OUTLOOK_ROLES);
            last = &o->roles[o->role_count++];
            *last = (px_outlook_role){.role = px_placement_role(p, r), .first = r};
            snprintf(last->name, sizeof last->name, "%s", px_role_name(p, r));
        }
        last->count++;
    }
    for (int i = 0; i < o->role_count; i++) {
        o->roles[i].threads = crew_of(session, layout, o->roles[i].first, o->roles[i].count).threads;
        list_memory(session, &o->roles[i]);
    }
    o->shared_bytes = (double)px_plan_shared(session);
}

double px_outlook_node_bytes(const px_outlook *o, const px_layout *layout, int node)
{
    int first;
    const px_node_group *group = px_layout_node(layout, node, &first);
    double bytes = o->shared_bytes, frozen = 0.0;
    for (int i = 0; i < o->role_count; i++) {
        int ranks = overlap(o->roles[i].first, o->roles[i].count, first, group->ranks_per_node);
        bytes += ranks * o->roles[i].memory_bytes;
        frozen = ranks > 0 ? fmax(frozen, o->roles[i].frozen_bytes) : frozen; /* driver and learners have the same */
    }
    return bytes + frozen;
}

static size_t node_memory(const px_layout *layout)
{
    return layout->node_memory > 0 ? layout->node_memory : px_memory_available() + px_alloc_live();
}

/* The first node that does not hold its ranks; -1: all do. */
static int short_node(const px_layout *layout, const px_outlook *o, size_t have)
{
    for (int n = 0; n < px_layout_nodes(layout); n++) {
        if (px_outlook_node_bytes(o, layout, n) > (double)have) {
            return n;
        }
    }
    return -1;
}

static px_status refuse(const px_session *session, const px_layout *layout, const px_outlook *o, int n, size_t have)
{
    double most = -1.0;
    px_role role = PX_ROLE_LEARNER;
    char node[16];
    int first;
    const px_node_group *group = px_layout_node(layout, n, &first);
    for (int i = 0; i < o->role_count; i++) {
        double all = overlap(o->roles[i].first, o->roles[i].count, first, group->ranks_per_node) * o->roles[i].memory_bytes;
        role = all > most ? o->roles[i].role : role;
        most = fmax(most, all);
    }
    snprintf(node, sizeof node, "%d", n);
    return px_plan_refuse(session, plan_of(session, role), node, group->ranks_per_node,
                          (size_t)px_outlook_node_bytes(o, layout, n), have);
}

/* ---- one stage -------------------------------------------------------------------------------------------------------------- */

static void describe(const px_session *session, const px_layout *layout, double completion, px_outlook *o)
{
    snprintf(o->stage, sizeof o->stage, "%s", px_stage_name(session->stage));
    o->algorithm = session->algorithm->name;
    o->iterations = session->total;
    o->role_count = 0;
    px_plan_schedule(session, o->schedule, sizeof o->schedule);
    px_plan_shares(session, o->shares, sizeof o->shares);
    list_roles(session, layout, o);
    if (session->algorithm == &px_algorithm_ppo) {
        int limit = session->ppo.sampling.max_new_tokens;
        o->completion_known = completion > 0.0 && completion < limit;
        o->completion_tokens = o->completion_known ? completion : limit;
    }
}

/* With the sizes of the layout: everything that a run reckons before it allocates. */
static px_status size_stage(px_session *session, const px_layout *layout, int *nodes, double completion, px_outlook *outlook)
{
    double started = px_now();
    PX_TRY(px_placement_plan(&session->placement, session->stage, layout));
    PX_TRY(px_compute_measure());
    px_dist_assume(nodes, session->placement.ranks, session->placement.learners);
    PX_TRY(px_session_columns(session));
    session->threads = px_outlook_crew(session, layout, PX_ROLE_LEARNER).threads;
    PX_TRY(px_session_prepare(session, ""));
    describe(session, layout, completion, outlook);
    size_t have = node_memory(layout);
    if (short_node(layout, outlook, have) >= 0) {
        px_plan_unpack(session);
        describe(session, layout, completion, outlook);
    }
    int node = short_node(layout, outlook, have);
    if (node >= 0) {
        return refuse(session, layout, outlook, node, have);
    }
    px_outlook_add(outlook->time, &outlook->time_count, "data", px_now() - started, "");
    outlook->seconds += px_now() - started;
    return PX_OK;
}

static px_status time_stage(px_session *session, const px_layout *layout, px_outlook *outlook)
{
    disk d = reckon_disk(session, outlook->completion_tokens);
    px_disk_speed speed;
    outlook->disk_bytes = d.bytes;
    outlook->disk_files = d.files;
    PX_TRY(px_probe_disk(session->dir, &speed));
    PX_TRY(px_forecast(session, layout, &speed, outlook));
    double saves = d.saves * (d.checkpoint_bytes * speed.byte + (d.checkpoint_files + 2.0) * speed.file);
    double results = d.result_bytes * speed.byte + d.checkpoint_files * speed.file;
    px_outlook_add(outlook->time, &outlook->time_count, "checkpoint", saves + results, "");
    double records = 2.0 * (double)session->total * speed.file; /* a row of metrics and status.json */
    px_outlook_add(outlook->time, &outlook->time_count, "record", records, "");
    outlook->seconds += saves + results + records;
    return PX_OK;
}

static px_status plan_stage(px_run *run, int index, const px_layout *layout, int *nodes, double *completion, px_outlook *outlook)
{
    px_session *session = px_alloc(sizeof *session, "a stage");
    if (session == NULL) {
        return px_error_code();
    }
    session->run = run;
    session->stage = px_config_stage(run->config, index);
    session->rewards = &run->rewards[index];
    session->algorithm = px_algorithm_find(px_stage_algorithm(session->stage));
    px_session_precision(session);
    px_status status = px_stage_dir(run, session->stage, session->dir, sizeof session->dir);
    if (status == PX_OK) {
        status = size_stage(session, layout, nodes, *completion, outlook);
        status = status == PX_OK && session->placement.split ? px_wire_check(session) : status;
        status = status == PX_OK ? time_stage(session, layout, outlook) : status;
        px_dist_assume(NULL, 1, 1);
    }
    if (status == PX_OK && session->algorithm == &px_algorithm_sft) {
        *completion = mean_completion(session);
    }
    px_session_free(session);
    px_free(session);
    return status;
}

static px_status plan_stages(px_run *run, const px_layout *layout, int *nodes, px_outlook *outlooks, int *count)
{
    double completion = 0.0;
    for (int i = 0; i < px_config_stage_count(run->config); i++) {
        const char *name = px_stage_name(px_config_stage(run->config, i));
        if (run->options.stage != NULL && strcmp(run->options.stage, name) != 0) {
            continue;
        }
        outlooks[*count] = (px_outlook){.iterations = 0};
        PX_TRY(plan_stage(run, i, layout, nodes, &completion, &outlooks[(*count)++]));
    }
    return PX_OK;
}

px_status px_run_outlook(px_run *run, const px_layout *layout, px_outlook *outlooks, int *count)
{
    int *nodes = px_alloc_array((size_t)px_layout_ranks(layout), sizeof *nodes, "the nodes of a plan");
    if (nodes == NULL) {
        return px_error_code();
    }
    for (int n = 0, r = 0, first; n < px_layout_nodes(layout); n++) {
        for (int i = px_layout_node(layout, n, &first)->ranks_per_node; i > 0; i--) {
            nodes[r++] = n;
        }
    }
    *count = 0;
    run->planning = true;
    px_log_level(PX_WARNING);
    px_status status = px_run_locate(run);
    status = status == PX_OK ? plan_stages(run, layout, nodes, outlooks, count) : status;
    px_free(nodes);
    return status;
}
