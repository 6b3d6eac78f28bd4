//! The loop's half that knows no Python: reactor, timers, inbox, executor, clock.
