"""What the stages and the commands of a project share.

paths        the path of every artifact, record and report
identities   what decides the masks and the figures of a cell, for their provenance
own_folders  folders that stages write to: no source may lie there, and records of other cells are removed
stage        a stage's function run from the command line
"""
