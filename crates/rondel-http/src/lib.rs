//! HTTP connections over hyper, driven by rondel-core; knows no Python.
