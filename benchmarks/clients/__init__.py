"""What else can run a batch: one client a file, each a process that takes a `Task` and prints how many jobs it lost."""
