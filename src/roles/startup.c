/* What the ranks find where they run: processors, their kind, file systems. They agree on one instruction set, share
 * the processors of a node, and say what costs speed or safety and how to change it. */
#include "node_list.h"
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

/* ---- facts ------------------------------------------------------------------------------------------------------ */

static bool may_use(const px_rank_facts *facts, int cpu)
{
    return (facts->cpus[cpu / 64] >> (cpu % 64)) & 1;
}

/* mpirun binds the ranks that it starts: what they could have had is what its own process on the node may use. */
static int count_offered(const px_rank_facts *facts)
{
    uint64_t mask[PX_MOST_CPUS / 64];
    int own = px_cpus_count(facts->cpus);
    if (getenv("OMPI_COMM_WORLD_SIZE") == NULL) {
        return own;
    }
    px_cpus_read((int)getppid(), mask);
    return px_cpus_count(mask) > own ? px_cpus_count(mask) : own;
}

static void find_facts(px_rank_facts *mine)
{
    px_cpus_read(0, mine->cpus);
    mine->offered = count_offered(mine);
    mine->level = px_compute_level();
    snprintf(mine->host, sizeof mine->host, "%s", px_dist_host());
    snprintf(mine->processor, sizeof mine->processor, "%s", px_processor_name());
}

/* ---- notes on the machines -------------------------------------------------------------------------------------- */

static void note_processors(const px_rank_facts *facts, int ranks)
{
    int lowest = 0, highest = 0, other = 0;
    for (int r = 1; r < ranks; r++) {
        lowest = facts[r].level < facts[lowest].level ? r : lowest;
        highest = facts[r].level > facts[highest].level ? r : highest;
        other = strcmp(facts[r].processor, facts[0].processor) != 0 ? r : other;
    }
    if (facts[lowest].level != facts[highest].level) {
        const char *low = px_compute_level_name(facts[lowest].level), *high = px_compute_level_name(facts[highest].level);
        px_log(PX_NOTE, "mixed processors: rank %d on %s has %s, rank %d on %s %s; all ranks use %s, so that they compute "
               "the same numbers; nodes of one kind (sbatch --constraint) are faster", highest, facts[highest].host, high,
               lowest, facts[lowest].host, low, low);
    } else if (other > 0) {
        px_log(PX_NOTE, "mixed processors: rank 0 on %s runs on %s, rank %d on %s on %s; the slowest sets the pace: ask "
               "for nodes of one kind (sbatch --constraint)", facts[0].host, facts[0].processor, other, facts[other].host,
               facts[other].processor);
    }
}

static void note_file_system(const char *dir)
{
    static const struct {
        unsigned long magic;
        const char *name;
    } remote[] = {{0x6969, "NFS"}, {0x517b, "SMB"}, {0xff534d42, "CIFS"}, {0xfe534d42, "SMB2"}, {0x5346414f, "AFS"},
                  {0x01021997, "9p"}};
    struct statfs found;
    if (statfs(dir, &found) != 0) {
        return;
    }
    for (size_t i = 0; i < sizeof remote / sizeof *remote; i++) {
        if (((unsigned long)found.f_type & 0xffffffff) == remote[i].magic) {
            px_log(PX_NOTE, "run.dir %s is on %s, where a run.h5 that is being written need not be readable: look at it "
                   "with 'phalanx inspect RUN --snapshot COPY.h5', or put run.dir on the parallel file system", dir,
                   remote[i].name);
        }
    }
}

static void note_blas(void)
{
    int threads = px_compute_blas_threads();
    if (threads > 1) {
        px_log(PX_NOTE, "OpenBLAS (PHALANX_GEMM=openblas) has started %d threads in each rank beside Phalanx's own, which "
               "call it one by one: set OPENBLAS_NUM_THREADS=1", threads);
    }
}

px_status px_startup_agree(px_run *run)
{
    int ranks = px_world_size(), lowest;
    px_free(run->facts);
    run->facts = px_alloc_array((size_t)ranks, sizeof *run->facts, "what ranks find where they run");
    PX_TRY(px_agree(run->facts != NULL ? PX_OK : px_error_code()));
    find_facts(&run->facts[px_world_rank()]);
    px_gather_shares(run->facts, sizeof *run->facts, ranks);
    lowest = run->facts[0].level;
    for (int r = 1; r < ranks; r++) {
        lowest = run->facts[r].level < lowest ? run->facts[r].level : lowest;
    }
    px_compute_limit(lowest);
    if (px_world_rank() == 0) {
        note_processors(run->facts, ranks);
        note_file_system(run->dir);
        note_blas();
    }
    return PX_OK;
}

/* ---- cores ------------------------------------------------------------------------------------------------------ */

/* Of all components of a heterogeneous job, with hyperthreads as Slurm counts them; 0: this is no job of Slurm. */
static int count_billed(void)
{
    const char *components = getenv("SLURM_HET_SIZE"), *all = getenv("SLURM_JOB_CPUS_PER_NODE");
    int count = components != NULL ? atoi(components) : 0, sum = 0;
    for (int i = 0; i < count; i++) {
        char name[64];
        snprintf(name, sizeof name, "SLURM_JOB_CPUS_PER_NODE_HET_GROUP_%d", i);
        const char *part = getenv(name);
        sum += part != NULL ? px_cpus_per_node_sum(part) : 0;
    }
    return sum > 0 || all == NULL ? sum : px_cpus_per_node_sum(all);
}

/* Processors that any rank of the node may use. */
static int count_node(const px_rank_facts *facts, int node)
{
    uint64_t all[PX_MOST_CPUS / 64] = {0};
    for (int r = 0; r < px_world_size(); r++) {
        for (int word = 0; word < PX_MOST_CPUS / 64 && px_world_node(r) == node; word++) {
            all[word] |= facts[r].cpus[word];
        }
    }
    return px_cpus_count(all);
}

int px_startup_cores(const px_run *run)
{
    int cores = count_billed(), next = 0; /* nodes are numbered by their first ranks */
    for (int r = 0; r < px_world_size() && (cores == 0 || next > 0); r++) {
        if (px_world_node(r) == next) {
            cores += count_node(run->facts, next++);
        }
    }
    return cores;
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

static bool together(const px_session *session, int one, int other)
{
    bool ahead = session->placement.split && px_stage_int(session->stage, "env_runners.max_staleness") > 0;
    return px_placement_together(&session->placement, ahead, one, other);
}

/* A processor belongs in equal parts to the ranks that may use it and compute at the same time: all of a node where none
 * is bound, one where each is bound to its own. */
int px_startup_threads(const px_session *session)
{
    const px_rank_facts *facts = session->run->facts;
    int ranks = px_world_size(), self = px_world_rank();
    double threads, share = 0.0;
    if (px_stage_number(session->stage, "run.threads_per_rank", &threads)) {
        return (int)threads;
    }
    for (int cpu = 0; cpu < PX_MOST_CPUS; cpu++) {
        int users = 0;
        for (int r = 0; r < ranks && may_use(&facts[self], cpu); r++) {
            users += together(session, self, r) && may_use(&facts[r], cpu);
        }
        share += users > 0 ? 1.0 / users : 0.0;
    }
    return share > 1.0 ? (int)(share + 1e-6) : 1;
}

/* ---- notes on threads ------------------------------------------------------------------------------------------- */

typedef struct node_use { /* of the node that a rank is on */
    int cpus, offered;    /* processors that its ranks may use; that they could have had */
    int ranks, threads;   /* that compute when this rank does */
    bool apart;           /* ranks of different turns may use different processors */
} node_use;

static node_use look(const px_session *session, int rank)
{
    const px_rank_facts *facts = session->run->facts;
    node_use use = {.offered = 0, .cpus = count_node(facts, px_world_node(rank))};
    for (int r = 0; r < px_world_size(); r++) {
        if (px_world_node(r) != px_world_node(rank)) {
            continue;
        }
        bool same_time = together(session, rank, r);
        use.offered = facts[r].offered > use.offered ? facts[r].offered : use.offered;
        use.ranks += same_time;
        use.threads += same_time ? session->ranks[r].cpus : 0;
        use.apart |= !same_time && memcmp(facts[r].cpus, facts[rank].cpus, sizeof facts[r].cpus) != 0;
    }
    return use;
}

/* The first rank that says something of its node is enough. */
static bool note_node(const px_session *session, int rank, bool automatic)
{
    const px_rank_facts *facts = &session->run->facts[rank];
    node_use use = look(session, rank);
    int threads = session->ranks[rank].cpus, own = px_cpus_count(facts->cpus);
    if (threads > own && own < use.offered) {
        px_log(PX_NOTE, "rank %d on %s: %d threads share what it is bound to, %d processor%s: mpirun --bind-to none (or "
               "--map-by slot:PE=%d), srun --cpus-per-task=%d", rank, facts->host, threads, own, own > 1 ? "s" : "", threads,
               threads);
    } else if (use.threads > use.cpus) {
        px_log(PX_NOTE, "%s: %d ranks x %d threads compute at the same time on %d processors: %sfewer ranks on a node",
               facts->host, use.ranks, threads, use.cpus, automatic ? "" : "run.threads_per_rank: auto, or ");
    } else if (automatic && use.cpus < use.offered) {
        px_log(PX_NOTE, "%s: ranks are bound to %d of %d processors, the others stay idle: mpirun --bind-to none (or "
               "--map-by slot:PE=T)", facts->host, use.cpus, use.offered);
    } else if (automatic && use.apart) {
        px_log(PX_NOTE, "%s: learners and env runners take turns, but each is bound to processors of its own, which idle "
               "meanwhile: mpirun --bind-to none, srun --cpu-bind=none", facts->host);
    } else {
        return false;
    }
    return true;
}

void px_startup_notes(const px_session *session)
{
    double threads;
    bool automatic = !px_stage_number(session->stage, "run.threads_per_rank", &threads);
    const char *wanted = getenv("OMP_NUM_THREADS");
    if (px_world_rank() != 0 || session->run->noted) {
        return;
    }
    session->run->noted = true;
    for (int r = 0; r < px_world_size(); r++) {
        if (note_node(session, r, automatic)) {
            break;
        }
    }
    if (wanted != NULL && atoi(wanted) > 0 && atoi(wanted) != session->threads) {
        px_log(PX_NOTE, "OMP_NUM_THREADS is %d, but run.threads_per_rank%s gives rank 0 %d threads, which holds", atoi(wanted),
               automatic ? ": auto" : "", session->threads);
    }
}
