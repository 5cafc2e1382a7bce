"""Resource planning: what a model needs, from its config.json, before anything runs.

outline  the sizes of a model from its config.json: the model built without values
shapes   the matrices of every block
needs    bytes that the stages need on disk and in memory
capacity free disk and memory, and an error if that is too little
checks   pre-flight checks of the stages
grid     the workload of one model in the grid of params.yaml
speed    measured speed of this machine, and the estimated time of every stage
tables   the plan as tables for a terminal
"""
