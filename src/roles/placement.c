/* Which rank does what, from the configuration and the number of ranks alone. */
#include "node_list.h"
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *key, *name;
} keys[] = {
    [PX_ROLE_LEARNER] = {"learners.num_learners", "learner"},
    [PX_ROLE_SCORER] = {"placement.num_scorers", "scorer"},
    [PX_ROLE_ENV_RUNNER] = {"env_runners.num_env_runners", "env_runner"},
    [PX_ROLE_EVALUATOR] = {"placement.num_evaluators", "evaluator"},
    [PX_ROLE_SPARE] = {"placement.num_spares", "spare"},
};
enum { ROLES = 5 };
static const char nodes_key[] = "placement.env_runner_nodes";

static px_status check_learners(const px_stage *stage, int learners)
{
    return learners <= PX_MAX_LEAVES
               ? PX_OK
               : px_stage_fail(stage, keys[0].key, "%d ranks would learn; valid is at most %d (give others env_runners, scorers or "
                               "more run.threads_per_rank)", learners, PX_MAX_LEAVES);
}

static px_status check_colocated(const px_stage *stage, int learners, int ranks)
{
    if (learners > 0 && learners != ranks) {
        return px_stage_fail(stage, keys[0].key, "%s is %d, but colocated every rank learns and the job has %d; valid is 0, or "
                             "env_runners.num_env_runners above 0", keys[0].key, learners, ranks);
    }
    return check_learners(stage, ranks);
}

static const char group[] = "het-group:";

static px_status check_list(const px_stage *stage, const char *list)
{
    return px_node_list_is_valid(list) ? PX_OK : px_stage_fail(stage, nodes_key, "%s: '%s' is no list of nodes; valid is "
                                                               "like cpu[001-016],old7 or het-group:1", nodes_key, list);
}

/* The nodes of a class: a list, or a component of a heterogeneous Slurm job. */
static px_status find_nodes(const px_stage *stage, const char **list)
{
    const char *text = px_stage_text(stage, nodes_key);
    char variable[64];
    *list = text;
    if (strncmp(text, group, sizeof group - 1) == 0) {
        snprintf(variable, sizeof variable, "SLURM_JOB_NODELIST_HET_GROUP_%.8s", text + sizeof group - 1);
        *list = getenv(variable);
        if (*list == NULL) {
            return px_stage_fail(stage, nodes_key, "%s: %s, but %s is not set: this is no heterogeneous Slurm job with that "
                                 "component; valid is het-group:0 up to its last, or a list of nodes", nodes_key, text, variable);
        }
    }
    return check_list(stage, *list);
}

/* Ranks on the nodes of the class, which are the last ones of the job. Collective over the job. */
static px_status count_on_nodes(const px_stage *stage, int *count)
{
    const char *list = "", *node = getenv("SLURMD_NODENAME");
    if (!px_dist_launched()) {
        return px_stage_fail(stage, nodes_key, "%s: one process is on one node and cannot only sample; valid here is null, or a job "
                             "of several ranks (mpirun, srun)", nodes_key);
    }
    int size = px_dist_size();
    int64_t *inside = px_alloc_array((size_t)size, sizeof *inside, "the nodes of the env runners");
    px_status status = px_agree(inside != NULL ? find_nodes(stage, &list) : px_error_code());
    *count = 0;
    if (status == PX_OK) {
        px_gather_i64(px_node_list_has(list, node != NULL ? node : px_dist_host()), inside);
    }
    for (int r = 0; status == PX_OK && r < size; r++) {
        *count += inside[r] != 0;
        if (*count > 0 && !inside[r]) {
            status = px_stage_fail(stage, nodes_key, "%s: rank %d is not on these nodes, but rank %d before it is; valid is an "
                                   "order of ranks in which they come last (mpirun --host, or the last component of the job)",
                                   nodes_key, r, r - 1);
        }
    }
    px_free(inside);
    if (status == PX_OK && *count == 0) {
        status = px_stage_fail(stage, nodes_key, "%s: none of the %d ranks is on these nodes (rank 0 is on %s); valid is a list "
                               "of nodes of this job", nodes_key, size, node != NULL ? node : px_dist_host());
    }
    return status;
}

/* The same of a job that does not run yet. */
static px_status count_in_layout(const px_stage *stage, const px_layout *layout, int *count)
{
    const char *text = px_stage_text(stage, nodes_key);
    int nodes = px_layout_nodes(layout), last = layout->group_count - 1, listed = 0, first;
    if (strncmp(text, group, sizeof group - 1) != 0) {
        PX_TRY(check_list(stage, text));
        listed = px_node_list_count(text);
    } else if (last > 0 && atoi(text + sizeof group - 1) == last) {
        listed = layout->groups[last].nodes;
    } else {
        return px_stage_fail(stage, nodes_key, "%s: %s, but the job has %d component%s and ranks that only sample come last; valid "
                             "is het-group:%d (--het-group NODESxTASKSxCORES adds a component)", nodes_key, text, last + 1,
                             last > 0 ? "s" : "", last > 0 ? last : 1);
    }
    if (listed >= nodes) {
        return px_stage_fail(stage, nodes_key, "%s: '%s' names %d nodes, the job has %d; valid is fewer, so that some learn (or "
                             "more --nodes)", nodes_key, text, listed, nodes);
    }
    px_layout_node(layout, nodes - listed, &first);
    *count = px_layout_ranks(layout) - first;
    return PX_OK;
}

/* Where nodes say who samples, the number of env runners follows. */
static px_status count_env_runners(const px_stage *stage, int on_nodes, int counts[ROLES])
{
    int given = counts[PX_ROLE_ENV_RUNNER], others = counts[PX_ROLE_EVALUATOR] + counts[PX_ROLE_SPARE];
    counts[PX_ROLE_ENV_RUNNER] = on_nodes - others;
    if (on_nodes <= others || (given > 0 && given != on_nodes - others)) {
        return px_stage_fail(stage, nodes_key, "%s: %d ranks are on these nodes, %d of them evaluators and spares, but "
                             "env_runners.num_env_runners is %d; valid is 0 (those on the nodes) and at least %d ranks on them",
                             nodes_key, on_nodes, others, given, others + 1);
    }
    return PX_OK;
}

static bool is_split(const px_stage *stage)
{
    return strcmp(px_stage_algorithm(stage), "ppo") == 0 && strcmp(px_stage_text(stage, "placement.strategy"), "split") == 0;
}

/* on_nodes: ranks on the nodes of those that only sample; -1: no nodes are named. */
static px_status place(px_placement *placement, const px_stage *stage, int ranks, int on_nodes)
{
    int counts[ROLES] = {0};
    bool ppo = strcmp(px_stage_algorithm(stage), "ppo") == 0;
    *placement = (px_placement){.ranks = ranks, .learners = ranks};
    for (int role = 0; role < ROLES; role++) {
        counts[role] = ppo || role == PX_ROLE_LEARNER ? (int)px_stage_int(stage, keys[role].key) : 0;
    }
    if (!is_split(stage)) {
        return check_colocated(stage, counts[PX_ROLE_LEARNER], ranks);
    }
    if (on_nodes >= 0) {
        PX_TRY(count_env_runners(stage, on_nodes, counts));
    }
    const char *env_runners = keys[PX_ROLE_ENV_RUNNER].key;
    if (counts[PX_ROLE_ENV_RUNNER] < 1) {
        return px_stage_fail(stage, "placement.strategy", "placement.strategy: split needs %s above 0", env_runners);
    }
    int scorers = counts[PX_ROLE_SCORER];
    int sampling = counts[PX_ROLE_ENV_RUNNER] + counts[PX_ROLE_EVALUATOR] + counts[PX_ROLE_SPARE], others = sampling + scorers;
    int learners = counts[PX_ROLE_LEARNER] > 0 ? counts[PX_ROLE_LEARNER] : ranks - others;
    if (others >= ranks) {
        return px_stage_fail(stage, env_runners, "%s: %d of %d ranks would only sample or score (%d env runners, %d evaluators, %d "
                             "spares, %d scorers) and none is left to learn; valid is at least %d ranks (mpirun -n %d), or %s: 0",
                             env_runners, others, ranks, counts[PX_ROLE_ENV_RUNNER], counts[PX_ROLE_EVALUATOR],
                             counts[PX_ROLE_SPARE], scorers, others + 1, others + 1, env_runners);
    }
    if (learners + others != ranks) {
        return px_stage_fail(stage, keys[0].key, "%s is %d and %d ranks only sample or score: %d in all, but the job has %d; valid "
                             "is %d, or 0 (all that do not only sample or score)", keys[0].key, learners, others,
                             learners + others, ranks, ranks - others);
    }
    *placement = (px_placement){true, ranks, learners, scorers, counts[PX_ROLE_ENV_RUNNER], counts[PX_ROLE_EVALUATOR],
                                counts[PX_ROLE_SPARE]};
    return check_learners(stage, learners);
}

px_status px_placement_make(px_placement *placement, const px_stage *stage, int ranks)
{
    int on_nodes = -1;
    if (is_split(stage) && px_stage_text(stage, nodes_key) != NULL) {
        PX_TRY(count_on_nodes(stage, &on_nodes));
    }
    return place(placement, stage, ranks, on_nodes);
}

px_status px_placement_plan(px_placement *placement, const px_stage *stage, const px_layout *layout)
{
    int on_nodes = -1;
    if (is_split(stage) && px_stage_text(stage, nodes_key) != NULL) {
        PX_TRY(count_in_layout(stage, layout, &on_nodes));
    }
    return place(placement, stage, px_layout_ranks(layout), on_nodes);
}

px_role px_placement_role(const px_placement *p, int rank)
{
    const int counts[ROLES] = {p->learners, p->scorers, p->env_runners, p->evaluators, p->spares};
    int role = 0;
    for (int end = counts[0]; rank >= end && role < ROLES - 1; end += counts[role]) {
        role++;
    }
    return (px_role)role;
}

bool px_placement_scores(const px_placement *p, int rank)
{
    return px_placement_role(p, rank) == (p->scorers > 0 ? PX_ROLE_SCORER : PX_ROLE_LEARNER);
}

int px_placement_first_to_score(const px_placement *p, int rank)
{
    int first = 0;
    while (!px_placement_scores(p, first) || px_world_node(first) != px_world_node(rank) || px_rank_died(first)) {
        first++;
    }
    return first;
}

const char *px_role_name(const px_placement *p, int rank)
{
    return rank == 0 ? "driver+learner" : keys[px_placement_role(p, rank)].name;
}

/* "1-3" of the ranks that have a role, "" where none has. */
static void range(const px_placement *p, px_role role, char out[32])
{
    int first = -1, last = -1;
    for (int r = 0; r < p->ranks; r++) {
        if (px_placement_role(p, r) == role) {
            first = first < 0 ? r : first;
            last = r;
        }
    }
    out[0] = '\0';
    if (first >= 0) {
        snprintf(out, 32, first == last ? "%d" : "%d-%d", first, last);
    }
}

static void print(const px_placement *p)
{
    char line[256], ranks[32];
    int n = 0;
    if (!p->split) {
        return;
    }
    for (int role = 0; role < ROLES; role++) {
        range(p, (px_role)role, ranks);
        if (ranks[0] != '\0') {
            n += snprintf(line + n, sizeof line - (size_t)n, "%s%s %s", n > 0 ? ", " : "", keys[role].name, ranks);
        }
    }
    px_log(PX_INFO, "ranks: %s (rank 0 drives)", line);
}

/* Who computes while the others wait: learners, scorers, or all that sample. */
static int turn_of(const px_placement *p, int rank)
{
    px_role role = px_placement_role(p, rank);
    return role < PX_ROLE_ENV_RUNNER ? (int)role : (int)PX_ROLE_ENV_RUNNER;
}

bool px_placement_together(const px_placement *p, bool ahead, int one, int other)
{
    return px_world_node(one) == px_world_node(other) && (!p->split || ahead || turn_of(p, one) == turn_of(p, other));
}

px_status px_session_ranks(px_session *session)
{
    int size = px_world_size();
    session->ranks = px_alloc_array((size_t)size, sizeof *session->ranks, "the rank map");
    PX_TRY(px_agree(session->ranks != NULL ? PX_OK : px_error_code()));
    for (int r = 0; r < px_dist_size(); r++) { /* those that live */
        struct {
            int rank;
            px_rank_info info;
        } one = {px_world_rank(), {.cpus = session->threads, .pid = (int)getpid()}};
        snprintf(one.info.host, sizeof one.info.host, "%s", px_dist_host());
        px_bcast(&one, sizeof one, r);
        session->ranks[one.rank] = one.info;
    }
    session->cores = px_startup_cores(session->run);
    print(&session->placement);
    return PX_OK;
}
