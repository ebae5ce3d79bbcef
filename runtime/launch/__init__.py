"""`graph.run`, in processes or in this one."""
