"""One module a group of cases; `net.case.groups` finds them all, in the order of their `ORDER`."""
