"""How work runs on this machine: tasks here or on Ray, threads and devices, files, resumption, progress."""
