//! The daemon's own log as a channel: needs nothing, and is what the example uses.
