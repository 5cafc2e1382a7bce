"""What a model will need, known from its config.json before anything runs; torch only where it says so.

shapes   a config.json as the matrices of every block, by a rule a family
needs    bytes on disk and in memory that the stages take
room     what disk and memory have free, and the refusal where that is too little
refusals what the stages call before they work (torch)
grid     what the grid of params.yaml asks of one model (torch)
speed    how fast this machine is, and the time of every stage from that (torch)
tables   all of it as tables for a terminal
"""
