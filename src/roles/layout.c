/* The nodes of a job that is planned. */
#include "phalanx/roles.h"

int px_layout_nodes(const px_layout *layout)
{
    int nodes = 0;
    for (int g = 0; g < layout->group_count; g++) {
        nodes += layout->groups[g].nodes;
    }
    return nodes;
}

int px_layout_ranks(const px_layout *layout)
{
    int ranks = 0;
    for (int g = 0; g < layout->group_count; g++) {
        ranks += layout->groups[g].nodes * layout->groups[g].ranks_per_node;
    }
    return ranks;
}

int px_layout_cores(const px_layout *layout)
{
    int cores = 0;
    for (int g = 0; g < layout->group_count; g++) {
        cores += layout->groups[g].nodes * layout->groups[g].ranks_per_node * layout->groups[g].cores;
    }
    return cores;
}

const px_node_group *px_layout_node(const px_layout *layout, int node, int *first_rank)
{
    const px_node_group *group = layout->groups;
    *first_rank = 0;
    for (; node >= group->nodes; group++) {
        PX_CHECK(group + 1 < layout->groups + layout->group_count);
        *first_rank += group->nodes * group->ranks_per_node;
        node -= group->nodes;
    }
    *first_rank += node * group->ranks_per_node;
    return group;
}
