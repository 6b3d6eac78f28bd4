#!/bin/sh
# Runs the tests of the crates that know no Python, by cargo-nextest where it is installed.
#
# A test that fails is run once more, and reported as flaky if it passes then.
# Doc tests run by `cargo test --doc`, which nextest leaves out.
set -eu
crates="-p rondel-core -p rondel-http"
if cargo nextest --version >/dev/null 2>&1; then
    # shellcheck disable=SC2086  # the list is meant to split
    cargo nextest run $crates --no-tests=warn --retries 1
else
    echo "cargo-nextest is not installed: running cargo test"
    # shellcheck disable=SC2086
    cargo test $crates --all-targets
fi
# shellcheck disable=SC2086
cargo test $crates --doc
