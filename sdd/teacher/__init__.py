"""Teachers: which demonstrations they read, in which context, with which parameters."""
