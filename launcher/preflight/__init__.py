"""A look at the nodes before the ranks start: what each one sees, and which is unfit."""
