"""What the kernel and the machine say of processes, and what processes of ours set right for themselves."""
