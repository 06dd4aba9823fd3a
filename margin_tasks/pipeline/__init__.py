"""The clearing day: one function for each task, called by the DAGs and by the command line."""
