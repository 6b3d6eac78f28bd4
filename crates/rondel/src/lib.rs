//! The extension module: loop, Future, Task, primitives, transports, server.
