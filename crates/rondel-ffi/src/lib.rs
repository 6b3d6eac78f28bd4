//! Every unsafe touch of CPython: references, type slots, calls, contexts.
