#!/usr/bin/env bash
# Fuzzes what reads files and programs from outside, with address and undefined-behaviour sanitizers (Clang, libFuzzer):
#   tests/fuzz/campaign.sh [EXECUTIONS [TARGET...]]      1000000 executions of every target without arguments
# Starts from tests/fuzz/corpus; what is found grows build/fuzz/corpus, an input that fails is left in build/fuzz as
# crash-*. Mended inputs belong into tests/fuzz/corpus, which the tests replay.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
runs=${1:-1000000}
[ $# -eq 0 ] || shift
build=${PHALANX_FUZZ_BUILD:-$root/build/fuzz}
mkdir -p "$build"
command -v clang >/dev/null || { echo "campaign: no clang" >&2; exit 77; }
cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=clang -DPHALANX_FUZZ=ON -DBUILD_TESTING=ON \
    -DCMAKE_C_FLAGS="-O1 -g1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer" \
    >"$build/configure.log" 2>&1 || { cat "$build/configure.log"; exit 1; }
if [ $# -eq 0 ]; then
    set -- $(cd "$root/tests/fuzz" && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')
fi
cd "$build"
for target; do
    cmake --build . --target "fuzz_$target" >build.log || { cat build.log; exit 1; }
    mkdir -p "corpus/$target"
    echo "== $target"
    nice "tests/fuzz_$target" -runs="$runs" -max_len="${PHALANX_FUZZ_LENGTH:-1024}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
        "corpus/$target" "$root/tests/fuzz/corpus/$target" 2>&1 | tail -20
done
