"""`headway exec`: a command as a task, and what a process of such a command has in common with a worker."""
