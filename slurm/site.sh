#!/bin/bash
# The site's settings for the templates beside this file. They are in site.yaml, as for `phalanx submit` (docs/hpc.md):
# account, partition, qos, constraint and sbatch become options of sbatch, modules and setup lines of the job.
#   sbatch $(slurm/site.sh) slurm/one-node.sbatch my-ppo.yaml     run: prints the options
#   . slurm/site.sh                                               sourced in a job: loads modules, runs the setup lines
# It reads `key: value`, lists on one line, [a, b], whose entries hold no comma, and lists of lines that begin with a dash.

phalanx_site() {
    local file=${PHALANX_SITE:-${XDG_CONFIG_HOME:-$HOME/.config}/phalanx/site.yaml}
    [ -r "$file" ] || return 0
    awk -v key="$1" '
        function bare(s) { sub(/[[:space:]]#.*$/, "", s); gsub(/^[[:space:]]+|[[:space:]]+$/, "", s); return s }
        function say(s) { s = bare(s); if (s ~ /^".*"$/ || s ~ /^\047.*\047$/) s = substr(s, 2, length(s) - 2)
                          if (s != "" && s != "null") print s }
        inside && sub(/^[[:space:]]*-[[:space:]]+/, "") { say($0); next }
        { inside = index($0, key ":") == 1 }
        inside { value = bare(substr($0, length(key) + 2)); count = 1; part[1] = value
                 if (value ~ /^\[.*\]$/) count = split(substr(value, 2, length(value) - 2), part, ",")
                 for (i = 1; i <= count; i++) say(part[i]) }' "$file"
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
