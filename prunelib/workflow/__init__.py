"""What the stages and the commands of a project share.

paths        the path of every artifact, record and report
identities   what decides the masks and the figures of a cell, for their provenance
own_folders  folders that stages write to: no source may lie there, and what is not of the grid is removed
own_library  the library that runs is the project's
stage        a stage's function run from the command line
"""
