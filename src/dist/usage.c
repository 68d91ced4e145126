/* What each phase takes: the clock and the processor time of this process, by the phase's name. */
#include "board.h"
#include "phalanx/dist.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PHASES = 16 }; /* more than a stage has; those beyond are not told apart */

static struct {
    struct {
        char name[32];
        double wall, cpu;
    } phases[PHASES];
    int count, now;
    double wall, cpu; /* when the phase `now` began */
} usage;

static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int find(const char *phase)
{
    for (int i = 0; i < usage.count; i++) {
        if (strncmp(usage.phases[i].name, phase, sizeof usage.phases[i].name - 1) == 0) {
            return i;
        }
    }
    return -1;
}

void px_usage_reset(void)
{
    memset(&usage, 0, sizeof usage);
    px_usage_turn("start");
}

void px_usage_turn(const char *phase)
{
    double wall = px_now(), cpu = cpu_now();
    if (usage.count > 0) {
        usage.phases[usage.now].wall += wall - usage.wall;
        usage.phases[usage.now].cpu += cpu - usage.cpu;
    }
    usage.wall = wall;
    usage.cpu = cpu;
    int i = find(phase);
    if (i < 0) {
        i = usage.count < PHASES ? usage.count++ : PHASES - 1;
        snprintf(usage.phases[i].name, sizeof usage.phases[i].name, "%s", phase);
    }
    usage.now = i;
}

void px_usage_of(const char *phase, double *wall_s, double *cpu_s)
{
    int i = find(phase);
    *wall_s = i >= 0 ? usage.phases[i].wall : 0.0;
    *cpu_s = i >= 0 ? usage.phases[i].cpu : 0.0;
}
