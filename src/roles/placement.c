/* Which rank does what, from the configuration and the number of ranks alone. */
#include "run.h"

#include <stdio.h>
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

static px_status check_colocated(const px_stage *stage, int learners, int ranks)
{
    if (learners > 0 && learners != ranks) {
        return px_stage_fail(stage, keys[0].key, "%s is %d, but colocated every rank learns and the job has %d; valid is 0, or "
                             "env_runners.num_env_runners above 0", keys[0].key, learners, ranks);
    }
    return PX_OK;
}

px_status px_placement_make(px_placement *placement, const px_stage *stage, int ranks)
{
    int counts[ROLES] = {0};
    bool ppo = strcmp(px_stage_algorithm(stage), "ppo") == 0;
    *placement = (px_placement){.ranks = ranks, .learners = ranks};
    for (int role = 0; role < ROLES; role++) {
        counts[role] = ppo || role == PX_ROLE_LEARNER ? (int)px_stage_int(stage, keys[role].key) : 0;
    }
    if (!ppo || strcmp(px_stage_text(stage, "placement.strategy"), "split") != 0) {
        return check_colocated(stage, counts[PX_ROLE_LEARNER], ranks);
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
    return PX_OK;
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

int px_placement_busy(const px_placement *p, int rank)
{
    int count = 0;
    for (int r = 0; r < p->ranks; r++) {
        count += px_world_node(r) == px_world_node(rank) && turn_of(p, r) == turn_of(p, rank);
    }
    return count;
}

/* Where roles take turns at the cores, the job keeps as many busy as the largest side has threads. */
static int busy_cores(const px_session *session)
{
    int cores[PX_ROLE_ENV_RUNNER + 1] = {0}, most = 0;
    for (int r = 0; r < session->placement.ranks; r++) {
        cores[turn_of(&session->placement, r)] += session->ranks[r].cpus;
    }
    for (int turn = 0; turn <= PX_ROLE_ENV_RUNNER; turn++) {
        most = cores[turn] > most ? cores[turn] : most;
    }
    bool ahead = session->placement.split && px_stage_int(session->stage, "env_runners.max_staleness") > 0;
    int core = cores[PX_ROLE_LEARNER] > cores[PX_ROLE_SCORER] ? cores[PX_ROLE_LEARNER] : cores[PX_ROLE_SCORER];
    return ahead ? core + cores[PX_ROLE_ENV_RUNNER] : most;
}

px_status px_session_ranks(px_session *session)
{
    int size = px_world_size();
    session->ranks = px_alloc_array((size_t)size, sizeof *session->ranks, "the rank map");
    PX_TRY(px_agree(session->ranks != NULL ? PX_OK : px_error_code()));
    px_rank_info *mine = &session->ranks[px_world_rank()];
    mine->cpus = session->threads;
    mine->pid = (int)getpid();
    snprintf(mine->host, sizeof mine->host, "%s", px_dist_host());
    px_gather_shares(session->ranks, sizeof *session->ranks, size);
    session->cores = busy_cores(session);
    print(&session->placement);
    return PX_OK;
}
