"""The adversary: real runs, faults at random moments, and a judge who compares bits.

``make chaos SEED=1 MINUTES=10`` runs it; docs/reliability.md says what it has found so far.
"""
