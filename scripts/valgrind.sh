#!/bin/bash
# Runs the safety driver, and the tests of objects' ends, under valgrind's memcheck: no error at all.
#
# usage: valgrind.sh PYTHON [WORKLOAD ...]    PYTHON's environment has maturin (`make tools`)
#
# Builds the extension without recycled blocks (`--cfg rondel_no_freelists`) in a target directory of
# its own and installs it beside, not over, what is there. CPython's allocator is the C library's, so
# that valgrind sees each block. Slow: some minutes.
set -eu
cd "$(dirname "$0")/.."
python=$1
shift
command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 1; }

cache=.cache/valgrind
rm -rf "$cache/dist" "$cache/site"
mkdir -p "$cache/dist"
RUSTFLAGS="--cfg rondel_no_freelists" CARGO_TARGET_DIR=target/valgrind \
    "$(dirname "$python")/maturin" build --profile dev-fast --interpreter "$python" --out "$cache/dist"
"$python" -m pip install --quiet --no-deps --target "$cache/site" "$cache"/dist/*.whl

# Children that the driver starts are Python's business, from their exec on; nobody waits in vain.
export PYTHONMALLOC=malloc PYTHONPATH=$cache/site:. RONDEL_TEST_SLOWNESS=30
check() { # ARGUMENTS...: of the interpreter
    valgrind --quiet --error-exitcode=99 --num-callers=30 --leak-check=no \
        --suppressions=tests/safety/valgrind.supp "$python" "$@"
}
check -m tests.safety.driver "$@"
[ $# -eq 0 ] || exit 0

# Those without chains of 100 000 links, which take valgrind minutes each.
export RONDEL_TEST_CHILD=1
for test in \
    test_a_dying_task_is_not_in_all_tasks \
    test_an_object_revived_by_its_subclass_stays_whole \
    test_an_object_kept_by_the_exception_handler_stays_whole \
    test_callbacks_of_weak_references_may_make_new_objects \
    test_finalizers_that_call_into_the_loop \
    test_a_class_assigned_to_a_live_object \
    test_an_object_kept_by_the_exception_handler_is_collected_later; do
    echo "$test"
    check -c "from tests.runtime.child import main; main()" \
        tests.runtime.test_safety_dealloc $test rondel
done
echo "valgrind: no errors"
