"""What a run will take, by arithmetic: parameters, updates, memory, disk, time.

Standard library only, so that a login node without torch can say it. Importing this package
loads nothing.
"""
