//! Native transports.

pub(crate) mod tcp;
