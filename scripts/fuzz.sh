#!/bin/bash
# Fuzzes what rondel-http parses, by libFuzzer; docs/safety.md says what each target asserts.
#
# usage: fuzz.sh TARGET|all SECONDS [LIBFUZZER-OPTION...]      (SECONDS for each target)
#        fuzz.sh install             what a build needs: the crates, and Debian's C++ compiler, if it is
#                                    missing and this is root
#
# FUZZ_JOBS targets run at once: two, where there are two processors.
#
# Needs Rust's stable compiler and a C++ compiler, no cargo-fuzz: the coverage that libFuzzer steers by
# is one of LLVM's passes, which the compiler is told to run. (`cargo +nightly fuzz run TARGET` works as
# well, with AddressSanitizer.) What is found is in fuzz/artifacts/TARGET, and fails this call; new inputs
# are kept in target/fuzz-corpus/TARGET, beside those of the repository in fuzz/corpus/TARGET.
set -u
cd "$(dirname "$0")/.." || exit 2
install() {
    cargo fetch --quiet --locked --manifest-path fuzz/Cargo.toml || return
    command -v c++ >/dev/null 2>&1 && return 0
    [ "$(id -u)" = 0 ] || { echo "a C++ compiler is missing and only root can install it" >&2; return 1; }
    command -v apt-get >/dev/null || { echo "a C++ compiler is missing and there is no apt-get" >&2; return 1; }
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends g++ >/dev/null
}
[ "${1:-}" != install ] || { install; exit; }
[ $# -ge 2 ] || { sed -n 's/^# usage: /usage: /p; s/^#  *\(fuzz.sh install\)  .*/       \1/p' "$0" >&2; exit 2; }
wanted=$1 seconds=$2
shift 2
for tool in cargo c++; do
    command -v "$tool" >/dev/null 2>&1 ||
        { echo "fuzz: no '$tool' here: $([ "$tool" = cargo ] && echo 'install Rust from https://rustup.rs' || echo 'apt-get install g++ (libFuzzer is C++)')" >&2; exit 2; }
done
mapfile -t known < <(sed -n 's/^name = "\([a-z0-9_]*\)"$/\1/p' fuzz/Cargo.toml | grep -v '^rondel')
case " all ${known[*]} " in
*" $wanted "*) ;;
*) echo "fuzz: no target '$wanted'; there are: ${known[*]}" >&2; exit 2 ;;
esac
[ "$wanted" = all ] && targets=("${known[@]}") || targets=("$wanted")

host=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags are for what runs in the fuzzer alone, not for build scripts.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
began=$SECONDS
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
RUSTFLAGS=$flags cargo build --quiet --release --locked --manifest-path fuzz/Cargo.toml \
    --target "$host" --target-dir target/fuzz "${bins[@]}" || { echo "fuzz: the targets do not build" >&2; exit 2; }
echo "built in $((SECONDS - began)) s"

run() { # TARGET LIBFUZZER-OPTION...: its line, and what it found; fails if it found something
    local target=$1 corpus=target/fuzz-corpus/$1 log=target/fuzz-corpus/$1.log began=$SECONDS how=passed
    shift
    mkdir -p "$corpus" "fuzz/artifacts/$target" "fuzz/corpus/$target"
    "target/fuzz/$host/release/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
        -max_len=4096 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" "$@" \
        "$corpus" "fuzz/corpus/$target" >"$log" 2>&1 || how=FAILED
    local runs cover
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    cover=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    printf '%s %s: %s runs, %s, %s s\n' "$how" "$target" "${runs:-?}" "${cover:-cov: ?}" "$((SECONDS - began))"
    [ "$how" = passed ] && return 0
    grep -a -m 1 -A 6 'panicked at\|ERROR: libFuzzer' "$log" | cut -c1-400
    grep -a 'Test unit written to' "$log"
    return 1
}

processors=$(nproc)
jobs=${FUZZ_JOBS:-$((processors < 2 ? 1 : 2))} began=$SECONDS passed=0 failed=()
# Who runs, in the order of their beginning: the oldest is waited for when there are enough.
pids=() names=()
collect() {
    if wait "${pids[0]}"; then passed=$((passed + 1)); else failed+=("${names[0]}"); fi
    pids=("${pids[@]:1}") names=("${names[@]:1}")
}
for target in "${targets[@]}"; do
    [ ${#pids[@]} -lt "$jobs" ] || collect
    run "$target" "$@" &
    pids+=($!) names+=("$target")
done
while [ ${#pids[@]} -gt 0 ]; do collect; done
printf 'fuzz: %s passed, %s failed (%s s%s)\n' "$passed" "${#failed[@]}" "$((SECONDS - began))" "${failed[*]:+; ${failed[*]}}"
[ ${#failed[@]} = 0 ]
