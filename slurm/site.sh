#!/bin/bash
# The site's settings for the templates beside this file. They are in site.yaml, as for `phalanx submit` (docs/hpc.md):
# account, partition, qos, constraint and sbatch become options of sbatch, modules and setup lines of the job.
#   sbatch $(slurm/site.sh) slurm/one-node.sbatch my-ppo.yaml     run: prints the options
#   . slurm/site.sh                                               sourced in a job: loads modules, runs the setup lines
# It reads `key: value` and lists on one line, [a, b], whose entries hold no comma.

phalanx_site() {
    local file=${PHALANX_SITE:-${XDG_CONFIG_HOME:-$HOME/.config}/phalanx/site.yaml}
    [ -r "$file" ] || return 0
    sed -n "s/^$1:[[:space:]]*//p" "$file" | sed 's/[[:space:]]#.*$//; s/^\[\(.*\)\][[:space:]]*$/\1/' | tr ',' '\n' |
        sed "s/^[[:space:]]*//; s/[[:space:]]*\$//; s/^[\"']\(.*\)[\"']\$/\1/" | grep -v -x -e null -e ''
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    for key in account partition qos constraint; do
        phalanx_site $key | sed "s/^/--$key=/"
    done
    phalanx_site sbatch
else
    while read -r line; do module load "$line"; done < <(phalanx_site modules)
    while read -r line; do eval "$line"; done < <(phalanx_site setup)
    phalanx=${PHALANX:-$(command -v phalanx || echo "$SLURM_SUBMIT_DIR/build/release/phalanx")}
fi
