/* Inside roles: which nodes a list names, and how many processors. */
#ifndef PHALANX_ROLES_NODE_LIST_H
#define PHALANX_ROLES_NODE_LIST_H

#include <stdbool.h>

bool px_node_list_is_valid(const char *list);
/* Of a valid list; the node's name with or without its domain. */
bool px_node_list_has(const char *list, const char *node);

int px_node_list_count(const char *list); /* of a valid list */
/* SLURM_JOB_CPUS_PER_NODE, e.g. "72(x2),36": over all nodes; 0: it is no such list. */
int px_cpus_per_node_sum(const char *text);

#endif
