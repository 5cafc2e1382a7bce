"""Execution: tasks in this process or on Ray, threads and devices, files, resuming, progress."""
